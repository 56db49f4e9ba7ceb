//! Every path of a node, and what wraps them: readiness, CORS, who served.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpResponse, web};

use crate::state::{ApiState, Readiness};
use crate::{api, lifecycle, pages, stopping};

/// Registers all routes. `state` is made once, outside the workers.
pub fn configure(config: &mut web::ServiceConfig, state: web::Data<ApiState>) {
    config
        .app_data(state)
        .route("/-/healthy", web::get().to(lifecycle::healthy))
        .route("/-/healthy", web::head().to(lifecycle::healthy))
        .route("/-/ready", web::get().to(lifecycle::ready))
        .route("/-/ready", web::head().to(lifecycle::ready))
        .service(
            web::resource("/-/reload")
                .route(web::post().to(lifecycle::reload))
                .route(web::put().to(lifecycle::reload))
                .default_service(web::to(lifecycle::only_post)),
        )
        .route("/-/safe-to-stop", web::get().to(stopping::safe_to_stop))
        .service(
            web::resource("/-/drain")
                .route(web::post().to(stopping::drain))
                .route(web::put().to(stopping::drain))
                .default_service(web::to(lifecycle::only_post)),
        )
        .route("/federate", web::get().to(api::federate::handle))
        .route("/metrics", web::get().to(lifecycle::metrics))
        .route("/cluster", web::get().to(pages::cluster::handle))
        .route("/cluster/live.js", web::get().to(pages::cluster::script))
        .route(
            "/",
            web::get()
                .to(async || HttpResponse::Found().insert_header((header::LOCATION, "/cluster")).finish()),
        )
        .service(web::scope("/api/v1").wrap(from_fn(around_api)).configure(api_routes))
        .default_service(web::to(async || HttpResponse::NotFound().body("404 page not found\n")));
}

fn api_routes(config: &mut web::ServiceConfig) {
    macro_rules! get_and_post {
        ($path:literal, $handler:path) => {
            config
                .service(web::resource($path).route(web::get().to($handler)).route(web::post().to($handler)))
        };
    }
    macro_rules! post_and_put {
        ($path:literal, $handler:path) => {
            config
                .service(web::resource($path).route(web::post().to($handler)).route(web::put().to($handler)))
        };
    }
    post_and_put!("/admin/tsdb/delete_series", api::admin_tsdb::delete_series);
    post_and_put!("/admin/tsdb/clean_tombstones", api::admin_tsdb::clean_tombstones);
    post_and_put!("/admin/tsdb/snapshot", api::admin_tsdb::snapshot);
    get_and_post!("/query", api::query::handle);
    get_and_post!("/query_range", api::query_range::handle);
    get_and_post!("/query_exemplars", api::query_exemplars::handle);
    get_and_post!("/series", api::series::handle);
    get_and_post!("/labels", api::labels::handle);
    get_and_post!("/label/{name}/values", api::label_values::handle);
    get_and_post!("/format_query", api::format_query::handle);
    get_and_post!("/parse_query", api::parse_query::handle);
    config.service(web::resource("/read").route(web::post().to(api::read::handle)));
    for path in api::write::PATHS {
        config.service(web::resource(path).route(web::post().to(api::write::handle)));
    }
    config
        .service(web::resource("/metadata").route(web::get().to(api::metadata::handle)))
        .service(web::resource("/targets/metadata").route(web::get().to(api::targets_metadata::handle)))
        .service(web::resource("/targets").route(web::get().to(api::targets::handle)))
        .service(web::resource("/blocks").route(web::get().to(api::blocks::handle)))
        .service(web::resource("/cluster").route(web::get().to(api::cluster::handle)))
        .service(web::resource("/cluster/nodes").route(web::get().to(api::cluster::nodes::handle)))
        .service(web::resource("/cluster/ownership").route(web::get().to(api::cluster::ownership::handle)))
        .service(web::resource("/cluster/coverage").route(web::get().to(api::cluster::coverage::handle)))
        .service(web::resource("/cluster/events").route(web::get().to(api::cluster::events::handle)))
        .service(web::resource("/cluster/events/stream").route(web::get().to(api::cluster::events::live)))
        .service(web::resource("/cluster/live").route(web::get().to(api::cluster::events::live)))
        .service(web::resource("/cluster/explain").route(web::get().to(api::cluster::explain::handle)))
        .service(web::resource("/status/buildinfo").route(web::get().to(api::status_buildinfo::handle)))
        .service(web::resource("/status/config").route(web::get().to(api::status_config::handle)))
        .service(web::resource("/status/flags").route(web::get().to(api::status_flags::handle)))
        .service(web::resource("/stores").route(web::get().to(api::stores::handle)))
        .service(web::resource("/status/runtimeinfo").route(web::get().to(api::status_runtimeinfo::handle)))
        .service(web::resource("/status/walreplay").route(web::get().to(api::status_walreplay::handle)))
        .service(web::resource("/status/tsdb").route(web::get().to(api::status_tsdb::handle)));
}

/// Paths that answer before the node is ready: they tell why it is not.
const ALWAYS: [&str; 3] = ["/api/v1/status/buildinfo", "/api/v1/status/flags", "/api/v1/status/walreplay"];

fn always_answers(path: &str) -> bool {
    ALWAYS.contains(&path) || path == "/api/v1/cluster" || path.starts_with("/api/v1/cluster/")
}

async fn around_api(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let origin = request.headers().contains_key(header::ORIGIN);
    let state = request.app_data::<web::Data<ApiState>>().cloned();
    let starting = state.as_ref().is_some_and(|s| s.readiness() == Readiness::Starting);
    let mut response = if request.method() == Method::OPTIONS {
        request.into_response(HttpResponse::NoContent().finish())
    } else if starting && !always_answers(request.path()) {
        request.into_response(lifecycle::not_ready(Readiness::Starting))
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, header::HeaderValue::from_static("Origin"));
    if origin {
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
    }
    if let Some(node) = state.and_then(|s| header::HeaderValue::from_str(&s.facts.node).ok()) {
        headers.insert(header::HeaderName::from_static("x-served-by"), node);
    }
    Ok(response)
}
