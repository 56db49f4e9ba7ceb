//! Thanos' parameters: resolution, replicas, stores, shards.
//!
//! Owns their texts and the texts of their errors, which are those of Thanos' querier. What they mean is
//! `koios_query::terms`. Bounds: `LABELS_MAX` labels of a shard.

use koios_query::{Resolution, SeriesShard, Terms};
use serde_json::Value;

use super::params::Params;
use super::reply::ApiError;

/// The parameters that Prometheus does not have.
const NAMES: [&str; 5] = ["dedup", "max_source_resolution", "replicaLabels[]", "shard_info", "storeMatch[]"];
/// Most labels that a shard names.
const LABELS_MAX: usize = 1024;

/// The terms that a request names.
pub fn terms(params: &Params) -> Result<Terms, ApiError> {
    let replica_labels: Vec<String> = params.all("replicaLabels[]").map(str::to_owned).collect();
    let mut stores = Vec::new();
    for text in params.all("storeMatch[]") {
        let parsed = koios_promql::parse_selector(text);
        stores.push(parsed.map_err(|e| wrong("storeMatch[]", &e.to_string()))?);
    }
    Ok(Terms {
        resolution: resolution(params)?,
        replica_labels: (!replica_labels.is_empty()).then_some(replica_labels),
        apart: params.boolean("dedup").map_err(|why| wrong("dedup", &why))? == Some(false),
        stores,
        shard: shard(params)?,
        named: NAMES.iter().any(|name| params.first(name).is_some()),
    })
}

fn wrong(name: &str, why: &str) -> ApiError {
    ApiError::bad_data(format!("'{name}' parameter: {why}"))
}

fn resolution(params: &Params) -> Result<Resolution, ApiError> {
    const NAME: &str = "max_source_resolution";
    match params.first(NAME) {
        None => Ok(Resolution::Configured),
        Some("auto") => Ok(Resolution::Auto),
        Some(text) => match super::params::read_duration(text) {
            None => {
                let shown = koios_model::format::go_quote(text);
                Err(wrong(NAME, &format!("cannot parse {shown} to a valid duration")))
            }
            Some(ms) if ms < 0 => {
                let why = format!("negative '{NAME}' is not accepted. Try a positive integer");
                Err(ApiError::bad_data(why))
            }
            Some(ms) => Ok(Resolution::Fixed(ms)),
        },
    }
}

fn shard(params: &Params) -> Result<Option<SeriesShard>, ApiError> {
    const NAME: &str = "shard_info";
    let Some(text) = params.first(NAME) else { return Ok(None) };
    let bad = |why: &str| ApiError::bad_data(format!("could not unmarshal parameter {NAME}: {why}"));
    let json: Value = serde_json::from_str(text).map_err(|e| bad(&e.to_string()))?;
    let fields = json.as_object().ok_or_else(|| bad("not an object"))?;
    // Go's encoder writes snake case, its decoder takes both.
    let field = |camel: &str, snake: &str| fields.get(camel).or_else(|| fields.get(snake));
    let number = |camel, snake| match field(camel, snake) {
        None | Some(Value::Null) => Ok(0),
        Some(v) => v.as_i64().ok_or_else(|| bad(&format!("{camel} is not an integer"))),
    };
    let (index, count) = (number("shardIndex", "shard_index")?, number("totalShards", "total_shards")?);
    let by = match field("by", "by") {
        None | Some(Value::Null) => false,
        Some(v) => v.as_bool().ok_or_else(|| bad("by is not a boolean"))?,
    };
    let names = match field("labels", "labels") {
        None | Some(Value::Null) => &[][..],
        Some(v) => v.as_array().ok_or_else(|| bad("labels is not a list"))?.as_slice(),
    };
    let name = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| bad("a label is not a text"));
    let labels: Vec<String> = names.iter().take(LABELS_MAX).map(name).collect::<Result<_, _>>()?;
    match (u64::try_from(index), u64::try_from(count)) {
        (_, Ok(0) | Err(_)) => Ok(None),
        (Ok(index), Ok(count)) => Ok(Some(SeriesShard { index, count, by, labels })),
        (Err(_), _) => Err(bad("shardIndex is negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Terms, String> {
        terms(&Params::new(vec![(name.to_owned(), text.to_owned())])).map_err(|e| e.message)
    }

    #[test]
    fn parameters_become_terms() {
        assert_eq!(read("query", "up"), Ok(Terms::default()));
        let resolution = |text| read("max_source_resolution", text).unwrap().resolution;
        assert_eq!(resolution("auto"), Resolution::Auto);
        assert_eq!(resolution("5m"), Resolution::Fixed(300_000));
        assert_eq!(resolution("3600"), Resolution::Fixed(3_600_000));
        assert!(read("dedup", "false").unwrap().apart && !read("dedup", "1").unwrap().apart);
        assert_eq!(read("replicaLabels[]", "r").unwrap().replica_labels, Some(vec!["r".to_owned()]));
        assert_eq!(read("storeMatch[]", "{__address__=\"a:1\"}").unwrap().stores.len(), 1);
        let text = r#"{"shardIndex":1,"totalShards":4,"by":true,"labels":["pod"]}"#;
        let shard = SeriesShard { index: 1, count: 4, by: true, labels: vec!["pod".to_owned()] };
        assert_eq!(read("shard_info", text).unwrap().shard, Some(shard));
        assert_eq!(read("shard_info", "{}").unwrap().shard, None);
    }

    #[test]
    fn errors_name_the_parameter() {
        for (name, text, why) in [
            ("dedup", "x", "'dedup' parameter: strconv.ParseBool: parsing \"x\": invalid syntax"),
            (
                "max_source_resolution",
                "x",
                "'max_source_resolution' parameter: cannot parse \"x\" to a valid duration",
            ),
            (
                "max_source_resolution",
                "-1",
                "negative 'max_source_resolution' is not accepted. Try a positive integer",
            ),
        ] {
            assert_eq!(read(name, text), Err(why.to_owned()));
        }
        assert!(read("storeMatch[]", "{").unwrap_err().contains("storeMatch[]"));
        for text in ["x", "[]", r#"{"totalShards":"a"}"#, r#"{"totalShards":2,"shardIndex":-1}"#] {
            assert!(read("shard_info", text).unwrap_err().contains("shard_info"), "{text}");
        }
    }
}
