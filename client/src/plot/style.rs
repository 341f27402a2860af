//! Colours and type of a picture, for light and dark pages.

/// Class, colour on light and on dark ground. Shapes take them as their current colour.
const COLOURS: [(&str, &str, &str); 19] = [
    ("ground", "#ffffff", "#0d1117"),
    ("ink", "#1c2128", "#e6edf3"),
    ("mute", "#59636e", "#9198a1"),
    ("grid", "#e4e8ec", "#232a33"),
    ("delivery", "#1f6feb", "#58a6ff"),
    ("pacing", "#d4570a", "#f0883e"),
    ("target", "#59636e", "#9198a1"),
    ("rtt", "#8250df", "#bc8cff"),
    ("base", "#59636e", "#9198a1"),
    ("queue", "#1a7f37", "#3fb950"),
    ("loss", "#cf222e", "#ff7b72"),
    ("again", "#9a6700", "#e3b341"),
    ("b0", "#8fbcff", "#2f62ad"),
    ("b1", "#ffb877", "#a8601f"),
    ("b2", "#8fd6a3", "#2c7a45"),
    ("b3", "#cdb0ff", "#6f4bb3"),
    ("b4", "#ff9f98", "#a33d38"),
    ("b5", "#e6cd72", "#857019"),
    ("b6", "#bcc4cd", "#565e68"),
];

/// The n-th colour for segments of bands.
pub(super) fn band(place: usize) -> &'static str {
    const BANDS: [&str; 7] = ["b0", "b1", "b2", "b3", "b4", "b5", "b6"];
    BANDS.get(place % BANDS.len()).copied().unwrap_or_default()
}

/// The rules, without the element around them.
pub(super) fn sheet() -> String {
    let rules = |colour: fn(&(&str, &'static str, &'static str)) -> &'static str| -> String {
        COLOURS.iter().map(|row| format!(".{}{{color:{}}}", row.0, colour(row))).collect()
    };
    format!(
        "text{{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:currentColor;\
         font-variant-numeric:tabular-nums}}\
         .title{{font-size:19px;font-weight:600}}.head{{font-weight:600}}.end{{text-anchor:end}}.mid{{text-anchor:middle}}\
         .fill{{fill:currentColor}}.area{{fill:currentColor;fill-opacity:.17;stroke:none}}\
         .line{{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}}\
         .dash{{stroke-dasharray:6 4}}.rule{{stroke:currentColor;stroke-width:1;shape-rendering:crispEdges}}\n\
         {}\n@media(prefers-color-scheme:dark){{{}}}",
        rules(|row| row.1),
        rules(|row| row.2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_given_for_both_grounds() {
        let sheet = sheet();
        for (class, light, dark) in COLOURS {
            assert_eq!(sheet.matches(&format!(".{class}{{color:")).count(), 2, "{class}");
            assert!(sheet.contains(light) && sheet.contains(dark), "{class}");
        }
        assert!((0..20).all(|place| COLOURS.iter().any(|row| row.0 == band(place))));
    }
}
