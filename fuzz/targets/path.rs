//! Hosts, base paths and templates: what parses reads the same when written out again.

#![no_main]

use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use paifang_model::{BasePath, HostPattern, PathTemplate, normalise_host};

fuzz_target!(|text: &str| {
    if let Ok(template) = PathTemplate::from_str(text) {
        let written = template.to_string();
        assert_eq!(PathTemplate::from_str(&written).as_ref(), Ok(&template), "{written:?}");
        assert!(template.parameters().count() <= template.segments().len());
    }
    if let Ok(base) = BasePath::from_str(text) {
        assert_eq!(BasePath::from_str(base.as_str()).as_ref(), Ok(&base));
        // What the base path leaves begins with a slash, so that matching never joins two names.
        let below = format!("{}/x", base.as_str().trim_end_matches('/'));
        assert_eq!(base.strip(&below), Some("/x"), "{base:?}");
        assert_ne!(base.strip(&format!("{}x", base.as_str())), Some("x"));
    }
    if let Ok(pattern) = HostPattern::from_str(text) {
        let written = pattern.to_string();
        assert_eq!(HostPattern::from_str(&written).as_ref(), Ok(&pattern));
        // A pattern never matches what a normalised host cannot be.
        if let HostPattern::Exact(name) = &pattern {
            assert!(pattern.matches(name));
            assert_eq!(normalise_host(name).map(str::to_ascii_lowercase).as_deref(), Some(&**name));
        }
    }
});
