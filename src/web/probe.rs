//! `/probe`: a template's recipe against the target that is named, within the time that the scrape has.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::control::{Asked, Fault, Refused};
use super::{Admitted, State, accept, encoded, origin, refused, written};
use crate::clock::Moment;
use crate::history::Board;
use crate::metrics::{self, Probed, openmetrics};
use crate::report;

/// How long Prometheus waits for a scrape.
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
/// What of it is kept for the way back, as Prometheus' own exporters do.
const OFFSET: Duration = Duration::from_millis(500);
/// How long it may take where nobody says, and at most.
const LONGEST: Duration = Duration::from_secs(120);
/// The longest target that can be meant.
const MAX_TARGET: usize = 1024;

/// What stands behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    check: String,
    target: String,
    /// The record, for people, instead of the metrics.
    #[serde(default)]
    debug: bool,
}

/// Runs the recipe, and answers with its metrics.
pub async fn probe(
    extract::State(state): extract::State<State>,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    if let Some(why) = origin::foreign(&headers, admitted.known).or_else(|| origin::rebound(&headers, admitted.known)) {
        return refused(&Refused::new(Fault::Forbidden, format!("not probed: {why}")));
    }
    let Some(control) = &state.control else { return StatusCode::NOT_FOUND.into_response() };
    let question = match question {
        Ok(Query(question)) if question.target.len() <= MAX_TARGET => question,
        Ok(_) => return refused(&Refused::new(Fault::Asked, "the target is too long")),
        Err(_) => {
            return refused(&Refused::new(Fault::Asked, "write /probe?check=NAME&target=TARGET, each once; debug=true shows the record"));
        }
    };
    let limit = match limit(&headers) {
        Ok(limit) => limit,
        Err(why) => return refused(&Refused::new(Fault::Asked, why)),
    };
    let began = Moment::now();
    let asked = Asked { check: question.check, target: question.target, limit };
    let board = match control.probe(asked).await {
        Ok(board) => board,
        Err(why) => return refused(&why),
    };
    if question.debug {
        return written("application/json", move || Ok(report::json(&state.report(&board.read(Moment::now()))))).await;
    }
    shown(&state, &headers, board, Moment::now().since(began)).await
}

async fn shown(state: &State, headers: &HeaderMap, board: Arc<Board>, took: Duration) -> Response {
    let gzip = accept::takes_gzip(headers);
    let probed = Probed { vantage: state.vantage.clone(), board, took };
    let mut response = if accept::prefers_openmetrics(headers) {
        written(openmetrics::CONTENT_TYPE, move || encoded(openmetrics::encode(&probed.gather()), gzip)).await
    } else {
        written(metrics::CONTENT_TYPE, move || encoded(metrics::text_of(&probed.gather())?, gzip)).await
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip && response.status().is_success() {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// How long the probe may take.
fn limit(headers: &HeaderMap) -> Result<Duration, String> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(LONGEST) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok()).filter(|s| s.is_finite() && *s > 0.0);
    let seconds = seconds.ok_or_else(|| format!("{TIMEOUT_HEADER} is no number of seconds"))?;
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
    // Of a time shorter than what is kept, a half is.
    Ok(whole.saturating_sub(OFFSET.min(whole / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_leaves_before_the_scrape_ends() {
        let of = |text: &'static str| limit(&[(TIMEOUT_HEADER.parse().unwrap(), HeaderValue::from_static(text))].into_iter().collect());
        assert_eq!(limit(&HeaderMap::new()), Ok(LONGEST));
        for (text, millis) in
            [("10", 9500), ("10.000000", 9500), (" 1 ", 500), ("0.5", 250), ("0.001", 0), ("1e9", 119_500), ("1e300", 119_500)]
        {
            assert_eq!(of(text).map(|limit| limit.as_millis()), Ok(millis), "{text}");
        }
        for bad in ["", "0", "-1", "ten", "NaN", "inf", "10s"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
