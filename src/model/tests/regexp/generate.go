// Asks Go's own regexp package what it makes of a table of patterns; writes answers.json.
// Run by hand with any Go from 1.25 on, in this directory: go run generate.go
package main

import (
	"encoding/json"
	"os"
	"regexp"
	"regexp/syntax"
)

type answer struct {
	Pattern string   `json:"pattern"`
	Error   string   `json:"error,omitempty"`
	Matches []int    `json:"matches,omitempty"`
	Groups  []string `json:"groups,omitempty"`
}

var patterns = []string{
	// plain, sets, gaps
	``, `a`, `abc`, `a|b`, `a|b|`, `|`, `(a|b)`, `(?:a|b)c`, `a.c`, `.*`, `.+`, `.`, `.?`, `a.*`, `.*a`, `.*a.*`, `a.+`, `.+a`, `.+.+`, `.*.*`, `a.*b.*c`,
	`foo|bar`, `foo.*|.*bar`, `(foo|bar).*`, `.*(foo|bar)`, `(foo|ba[rz])-[0-9]`, `(|a)b`, `(a|)b?`, `(foo|bar)?`, `foo(bar)?`, `^foo$`, `^(foo|bar)$`, `^a|b$`, `(^a)b`, `a^b`, `a$b`, `(a$)`, `x*`, `xx*`, `(x)*`,
	// repeats
	`a*`, `a+`, `a?`, `a*?`, `a+?`, `a??`, `a{2}`, `a{2,}`, `a{2,3}`, `a{0}`, `a{0,0}`, `a{0,1}`, `a{,5}`, `a{`, `{`, `}`, `{}`, `a{}`, `a{1`, `a{1,`, `a{1,2`, `a{b}`, `a{1,b}`, `a{01}`, `a{1,02}`, `a{ 1}`, `a{1}{`,
	`a{1000}`, `a{1001}`, `a{1,1001}`, `a{1001,}`, `a{3,2}`, `a{99999999999}`, `a{1,99999999999}`, `(a{10}){100}`, `(a{10}){101}`, `((a{10}){10}){10}`, `((a{10}){10}){11}`, `(a{0,100}){11}`, `(a{0,10}){0,100}`, `(a*){1000}`, `(a{1000}){0}`, `(a{1000}){1}`, `(a{1000}){0,1}`, `(a{500}){2,}`, `(a{501}){2,}`, `(a{1000}b{1000})`,
	`a**`, `a*+`, `a++`, `a?+`, `a???`, `a*??`, `a{2}{3}`, `a{2}*`, `a*{2}`, `a{2}?`, `a{2}??`, `(a*)*`, `(a*)+`, `(a+)?`, `*`, `+`, `?`, `*a`, `|*`, `a|*`, `(*)`, `(+a)`, `(|?)`, `^*`, `$+`, `\b?`, `^{2}`, `(?i)*`, `a(?i)*`, `\Q\E*`, `a\Q\E*`, `()*`, `(|a)*`, `(|a)+`, `(?:)*`, `{2}`, `a|{2}`, `({2})`,
	// groups and flags
	`(`, `)`, `(a`, `a)`, `(a))`, `((a)`, `(?`, `(?:`, `(?:a`, `(?i`, `(?i)`, `(?i)a`, `(?i)AbC`, `(?i:a)b`, `a(?i)b`, `(a(?i)b)c`, `(?i)a(?-i)b`, `(?-i)a`, `(?s).`, `(?-s).`, `(?-s)a.b`, `(?-s:.)|\n`, `(?m)^a$`, `(?m)a$\nb`, `(?m)^a$\n^b$`, `a$\nb`, `(?U)a*`, `(?U)a*?`, `(?U)(a+)(a*)`, `(a+?)(a*)`, `(a+)(a*)`, `(?U)(a+?)(a*)`,
	`(?im)a`, `(?i-s)a.`, `(?i-s:a.)b`, `(?-)`, `(?-:a)`, `(?--i)`, `(?i-)`, `(?i-)a`, `(?)`, `(?)a`, `(?:)`, `(?x)a`, `(?u)a`, `(?R)`, `(?#a)`, `(?=a)`, `(?!a)`, `(?<=a)`, `(?<!a)`, `(?>a)`, `(?|a)`, `(?&a)`, `(?1)`, `(?P=a)`, `(?P>a)`, `(?'n'a)`, `(?C)`, `(?a)`, `(?iа)`, `(?é)`,
	`(?P<n>a)`, `(?<n>a)`, `(?P<n>a)(?P<m>b)`, `(?P<n>a)(?P<n>b)`, `(?<n>a)|(?P<n>b)`, `(?P<1a>a)`, `(?P<1>a)`, `(?P<n`, `(?P<`, `(?<`, `(?P<>a)`, `(?<>a)`, `(?P<n m>a)`, `(?P<n-m>a)`, `(?P<é>a)`, `(?P<_>a)`, `(?Pn>a)`, `(?P`, `(?P=n)`, `(?P<n>`, `(?P<n>a`,
	// escapes
	`\`, `a\`, `\.`, `a\.b`, `\\`, `\/`, `\-`, `\_`, `\ `, `\"`, `\'`, `\<`, `\>`, `\%`, `\@`, `\~`, `\é`, `\a`, `\f`, `\n`, `\r`, `\t`, `\v`, `\e`, `\c`, `\cA`, `\y`, `\Y`, `\g`, `\h`, `\H`, `\k`, `\K`, `\l`, `\L`, `\N`, `\R`, `\X`, `\Z`, `\G`, `\u0041`, `\U00000041`, `\i`, `\j`, `\m`, `\o`, `\q`,
	`\0`, `\00`, `\000`, `\0000`, `\01`, `\012`, `\101`, `\1011`, `\1`, `\7`, `\8`, `\9`, `\12`, `\18`, `\19`, `\77`, `\777`, `\08`, `a\1`, `(a)\1`, `(a)\10`,
	`\x`, `\x4`, `\x41`, `\x4g`, `\xg`, `\x411`, `\x{41}`, `\x{}`, `\x{`, `\x{4`, `\x{4g}`, `\x{10FFFF}`, `\x{110000}`, `\x{00000041}`, `\x{D800}`, `\x{E9}`, `\xE9`, `\x{FFFFFFFFFF}`,
	`\A`, `\Aa\z`, `\z`, `a\A`, `\ba\b`, `\bé`, `\Bé`, `a\Bb`, `a\bb`, `a\b b`, `\b`, `\B`, `\b{start}`, `\C`, `\Q`, `\Qa.b\E`, `\Qa.b`, `\Qa.b\E*`, `\Qab\E+`, `\Q\\E`, `\Q[\E`, `a\Eb`, `\E`, `(?i)\Qab\E`,
	// classes
	`\d`, `\D`, `\w`, `\W`, `\s`, `\S`, `\d+`, `\w+`, `\s+`, `[\d]`, `[\D]`, `[\w-]+`, `[^\w]`, `[^\W]`, `[\s\S]`, `[\d-a]`, `[\d-]`, `[a-\d]`, `[-\d]`, `[\w-z]`, `(?i)\w`, `(?i)\W`, `(?i)[k]`, `(?i)k`, `(?i)[^k]`, `(?i)s`, `(?i)é`, `(?i)ß`, `(?i)İ`, `(?i)Σ`,
	`[a]`, `[ab]`, `[a-c]`, `[^a]`, `[^a-c]`, `[c-a]`, `[a-a]`, `[a`, `[`, `[]`, `[]a]`, `[^]`, `[^]a]`, `[]-a]`, `[a]]`, `[[]`, `[[a]`, `[a[b]`, `[a[b]]`, `[-a]`, `[a-]`, `[a-b-c]`, `[a-b-]`, `[--a]`, `[--/]`, `[+--]`, `[---]`, `[--]`, `[-]`, `[^-]`, `[a--b]`, `[a&&b]`, `[a~~b]`, `[a||b]`, `[a&&[b]]`, `[\]]`, `[\[]`, `[\\]`, `[\-a]`, `[a\-c]`, `[.]`, `[*+?]`, `[$^]`, `[|]`, `[(]`, `[)]`, `[{}]`, `[ ]`, `[a b]`, `[#]`, `[\n]`, `[^\n]`, `[\b]`, `[\A]`, `[\z]`, `[\Q]`, `[\Qa\E]`, `[\1]`, `[\12]`, `[\0]`, `[\x41]`, `[\x{41}-\x{43}]`, `[\x41-C]`, `[\é]`, `[\`, `[a\`, `[\y]`, `[a-\`, `[a-`, `[é]`, `[é-ü]`, `[^é]`, `[\x{0}-\x{10FFFF}]`, `[^\x{0}-\x{10FFFF}]`, `[\x{D7FF}-\x{E000}]`, `[\x{D800}-\x{DFFF}]`,
	`[[:alpha:]]`, `[[:alnum:]]`, `[[:ascii:]]`, `[[:blank:]]`, `[[:cntrl:]]`, `[[:digit:]]`, `[[:graph:]]`, `[[:lower:]]`, `[[:print:]]`, `[[:punct:]]`, `[[:space:]]`, `[[:upper:]]`, `[[:word:]]`, `[[:xdigit:]]`, `[[:^alpha:]]`, `[^[:alpha:]]`, `[^[:^alpha:]]`, `[[:foo:]]`, `[[:^foo:]]`, `[[:alpha:]`, `[[:alpha:`, `[[:alpha]`, `[:alpha:]`, `[[:alpha:][:digit:]]`, `[[:alpha:]0-3]`, `[a-[:digit:]]`, `[[:digit:]-a]`, `[[:]`, `[[::]]`, `[[:a]:]]`, `(?i)[[:upper:]]`, `(?i)[[:^upper:]]`, `[[=a=]]`, `[[.a.]]`,
	`\pL`, `\pN`, `\PL`, `\p{L}`, `\p{Lu}`, `\P{Lu}`, `\p{^Lu}`, `\P{^Lu}`, `\p{Greek}`, `\p{greek}`, `\p{^Greek}`, `\P{Greek}`, `\p{Letter}`, `\p{Uppercase_Letter}`, `\p{uppercase letter}`, `\p{Any}`, `\P{Any}`, `\p{ASCII}`, `\p{Assigned}`, `\p{Cn}`, `\p{LC}`, `\p{Zs}`, `\p{Nd}`, `\p{Latin}`, `\p{Han}`, `\p{Cyrillic}`, `\p{Foo}`, `\p{}`, `\p{`, `\p{L`, `\p`, `\P`, `\pX`, `\p{Alphabetic}`, `\p{White_Space}`, `\p{script=Greek}`, `\p{sc=Greek}`, `\p{gc=Lu}`, `\p{L}+`, `[\pL]`, `[^\pL]`, `[\p{^L}]`, `[\p{Lu}\d]`, `[\p{Foo}]`, `[\pL-a]`, `(?i)\p{Lu}`, `(?i)\P{Lu}`, `(?i)\p{Ll}`, `\pé`, `\p{é}`, `[\p{L]`,
	// as users write them
	`node-[0-9]+`, `prometheus|alertmanager`, `(?:prod|staging)-.*`, `https?://[^/]+/.*`, `[a-z]+\.example\.com`, `5..`, `[45]..`, `.*:9100`, `(.*):(\d+)`, `(.*)`, `([^:]+)(?::\d+)?;(\d+)`, `__meta_(.+)`, `kube_.+|node_.+`, `\d{3}`, `10\.0\.\d{1,3}\.\d{1,3}`, `a+b+`, `(a+)(b+)?`, `(a|ab)(c|bcd)(d*)`, `(.*?)(\d*)`, `(.+)-(.+)`, `(a)|(b)`, `((a)|(b))+`, `(a*)(a|aa)`, `(?i)(foo)-(bar)`, `()`, `(a)(b)?(c)`, `(a?)*`, `(a|b)*`, `(a*)+`, `(a*|b)*`, `(?:(a)|b)*`,
}

var values = []string{
	"", "a", "b", "c", "A", "B", "k", "K", "\u212a", "s", "\u017f", "é", "É", "ß", "ẞ", "σ", "ς", "Σ", "i", "İ", "ab", "aB", "AB", "abc", "ABC", "AbC", "aaa", "aa", "aab", "aabb", "abcd", "a.b", "a.c", "axc", "a\nc", "a\nb", "\n", "\r", "\t", "\v", "\f", " ", "a b", "x", "xx", "0", "1", "9", "12", "٤", "-", "_", ".", "\\", "\"", "]", "[", "[b", "a]", "a-", "-a", "a-b", "{", "}", "{}", "a{", "a{}", "a{b}", "a{,5}", "a{1", "a{1,", "a{1,2", "a{1,b}", "a{01}", "a{ 1}", "a{", "{2}", "&", "~", "|", "^", "$", "*", "+", "?", "(", ")", "#", ":", "=", "p", "Q", "E", "e", "z", "\x00", "\x01", "\x07", "\x7f", "\x80", "ü", "α", "Я", "漢", "\U0010ffff", "\ud7ff", "foo", "bar", "foobar", "xfoo", "foox", "FOO", "foo-1", "baz-2", "foo-bar", "FOO-BAR", "test", "node-17", "prometheus", "prod-1", "https://x/y", "http://x/", "www.example.com", "500", "404", "host:9100", "h:80;443", "h;443", "__meta_x", "kube_pod", "node_load1", "10.0.1.25", "aaaa", "b-a-1",
	"A1", "a1", "Aa", "S", "]a", "aaaaaaaaaa", "\\E", "\\\\E", "'", "/", "<", "%", "@", "word", "a_b", "ba", "bab", "aba", "abab", "c3", "a\\1",
}

func main() {
	var out struct {
		Values  []string `json:"values"`
		Answers []answer `json:"answers"`
	}
	out.Values = values
	for _, p := range patterns {
		a := answer{Pattern: p}
		parsed, err := syntax.Parse(p, syntax.Perl|syntax.DotNL)
		if err != nil {
			a.Error = err.Error()
		} else {
			re, err := regexp.Compile("^(?s:" + p + ")$")
			if err != nil {
				// An open \Q swallows the bracket; matchers print the parsed pattern first.
				re = regexp.MustCompile("^(?s:" + parsed.String() + ")$")
			}
			for i, v := range values {
				if m := re.FindStringSubmatchIndex(v); m != nil {
					a.Matches = append(a.Matches, i)
					a.Groups = append(a.Groups, string(re.ExpandString(nil, "$1|$2|$3|$n", v, m)))
				}
			}
		}
		out.Answers = append(out.Answers, a)
	}
	f, err := os.Create("answers.json")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if err := json.NewEncoder(f).Encode(out); err != nil {
		panic(err)
	}
}
