//! `/api/v1/label/<name>/values`.

use actix_web::{HttpResponse, web};

use super::labels::words;
use crate::codec::params::Params;
use crate::codec::reply::ApiError;
use crate::state::ApiState;

/// Answers GET, and POST as some clients send it.
///
/// # Errors
/// As Prometheus.
pub async fn handle(
    state: web::Data<ApiState>,
    path: web::Path<String>,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    let name = unescape(&path);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!(
            "invalid label name: {}",
            koios_model::format::go_quote(&path)
        )));
    }
    words(&state, &params, name).await
}

/// Undoes the `U__` escaping of UTF-8 names in paths: `_hex_` is a code point, `__` an underscore. A text
/// that is not properly escaped stays as it is.
fn unescape(text: &str) -> String {
    let Some(rest) = text.strip_prefix("U__") else { return text.to_owned() };
    let mut out = String::new();
    let mut rest = rest;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('_') {
            out.push('_');
            rest = next;
            continue;
        }
        let decoded = after.find('_').filter(|end| (1..=6).contains(end)).and_then(|end| {
            let point = u32::from_str_radix(&after[..end], 16).ok()?;
            Some((char::from_u32(point)?, &after[end + 1..]))
        });
        let Some((c, next)) = decoded else { return text.to_owned() };
        out.push(c);
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn names_are_unescaped() {
        for (path, name) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__open_2e", "U__open_2e"),
            ("__name__", "__name__"),
        ] {
            assert_eq!(unescape(path), name);
        }
    }
}
