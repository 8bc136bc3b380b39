//! Templates: what a check may be that is run against targets which others name, and for whom.

use std::sync::Arc;

use crate::config::{self, Context, Own};
use crate::plan::{Template, Within};
use crate::web::Settings;

/// Every template of the file; what is wrong with one is noted.
pub(super) fn templates(checks: &[config::Check], web: Option<&Settings>, context: &Context<'_>) -> Vec<Template> {
    checks.iter().filter_map(|check| template(check, web, context)).collect()
}

fn template(check: &config::Check, web: Option<&Settings>, context: &Context<'_>) -> Option<Template> {
    let is_template = check.template.as_ref().is_some_and(|template| template.value);
    let Some(template) = check.template.as_ref().filter(|_| is_template) else {
        if let Some(allowed) = &check.allow_targets {
            context.wrong(&allowed.place, "is for the targets of a template; write template = true too, or leave it out");
        }
        return None;
    };
    if let Some(Own::Http(http)) = &check.own {
        let via = http
            .via
            .proxy
            .as_ref()
            .map(|via| (&via.place, "the proxy would resolve a target's name, and nobody could tell where that leads"));
        let led = http.follow_redirects.as_ref().filter(|follow| follow.value);
        let led = led.map(|follow| (&follow.place, "a redirect would lead to where allow_targets does not reach"));
        let many = http.variants.as_ref().map(|variants| (&variants.place, "variants take minutes, and a scrape has seconds"));
        for (place, why) in [via, led, many].into_iter().flatten() {
            context.wrong(place, format!("cannot stand in a template: {why}; leave it out"));
        }
    }
    let Some(allowed) = &check.allow_targets else {
        if !context.has_problem_at(&format!("{}.allow_targets", check.place.path)) {
            let message = "a template runs against targets that others name; write allow_targets = [\"192.0.2.0/24\"], the networks that they may lie in";
            context.wrong(&template.place, message);
        }
        return None;
    };
    match web {
        Some(settings) if !settings.is_local() && settings.is_open() => {
            let message = format!(
                "whoever can reach {} could have this monitor knock at every address of allow_targets; write basic_auth or client_ca_file \
                 in [web], or listen on 127.0.0.1",
                settings.listen
            );
            context.wrong(&template.place, message);
        }
        Some(_) => {}
        None if check.placeholder => {
            context.hint(&template.place, "is run when /probe is asked for it, and there is no [web] to ask; write that too")
        }
        None => {}
    }
    if let Some(all) = allowed.value.iter().find(|net| net.prefix_len() == 0) {
        context.hint(
            &allowed.place,
            format!("{all} is every address there is, this host's own and cloud metadata among them; write the networks that are meant"),
        );
    }
    let kind = check.own.as_ref()?.kind();
    Some(Template { name: check.name.as_ref()?.value.clone(), kind, within: Arc::new(Within(allowed.value.clone())) })
}
