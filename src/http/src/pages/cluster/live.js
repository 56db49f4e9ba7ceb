// Redraws /cluster when something happened: told by server-sent events, else every few seconds.
(() => {
  const part = document.getElementById("live");
  const stamp = document.getElementById("stamp");
  const calm = 1000, poll = 5000;
  let busy = false, again = false, drawn = Date.now();
  const draw = async () => {
    if (document.hidden) return;
    if (busy) { again = true; return; }
    busy = true;
    try {
      const url = new URL(location.href);
      url.searchParams.set("part", "1");
      const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      part.innerHTML = await answer.text();
      drawn = Date.now();
    } catch (e) {
      stamp.textContent = "this node does not answer; what is shown is " + Math.round((Date.now() - drawn) / 1000) + " s old";
    }
    // At most one drawing a second.
    setTimeout(() => { busy = false; if (again) { again = false; draw(); } }, calm);
  };
  const source = new EventSource("api/v1/cluster/events/stream");
  source.onmessage = draw;
  setInterval(draw, poll);
  setInterval(() => {
    const age = Math.round((Date.now() - drawn) / 1000);
    if (age < 2 * poll / 1000) stamp.textContent = "updated " + age + " s ago";
  }, 1000);
  document.addEventListener("visibilitychange", draw);
})();
