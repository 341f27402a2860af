//! Checks JSON against the part of JSON Schema (2020-12) that haul's own schema uses: `$ref` into `$defs`, `oneOf`, `type`, `enum`,
//! `const`, `properties`, `required`, `additionalProperties` as a schema, `minimum`, `maximum`. Another keyword fails.

use serde_json::Value;

/// A schema that has been read.
#[derive(Debug, Clone)]
pub struct Schema(Value);

/// Keywords that say nothing about validity.
const NOTES: [&str; 4] = ["$schema", "title", "description", "$defs"];

impl Schema {
    /// Reads a schema.
    ///
    /// # Panics
    /// If it is no JSON.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("a schema is JSON"))
    }

    /// What is wrong with `value`; none if it fits.
    #[must_use]
    pub fn problem(&self, value: &Value) -> Option<String> {
        self.check(&self.0, value, "").err()
    }

    /// The names in `$defs`.
    pub fn definitions(&self) -> impl Iterator<Item = &str> {
        self.0.get("$defs").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let keywords = schema.as_object().ok_or_else(|| format!("{at}: the schema is no object"))?;
        for (keyword, rule) in keywords {
            let fine = match keyword.as_str() {
                "$ref" => {
                    let target = rule.as_str().and_then(|text| self.0.pointer(text.strip_prefix('#')?));
                    self.check(target.ok_or_else(|| format!("{at}: {rule} leads nowhere"))?, value, at)?;
                    true
                }
                "oneOf" => {
                    let all = rule.as_array().into_iter().flatten();
                    all.filter(|one| self.check(one, value, at).is_ok()).count() == 1
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|one| is_of(one, value)),
                    one => is_of(one, value),
                },
                "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
                "const" => rule == value,
                "minimum" => {
                    value.as_f64().is_none_or(|value| rule.as_f64().is_some_and(|least| value >= least))
                }
                "maximum" => {
                    value.as_f64().is_none_or(|value| rule.as_f64().is_some_and(|most| value <= most))
                }
                "required" => rule
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .all(|name| value.get(name).is_some()),
                "properties" => {
                    for (name, rule) in rule.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(name) {
                            self.check(rule, value, &format!("{at}.{name}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        self.check(rule, value, &format!("{at}.{name}"))?;
                    }
                    true
                }
                note if NOTES.contains(&note) => true,
                other => return Err(format!("{at}: the keyword {other} is not understood here")),
            };
            if !fine {
                return Err(format!("{at}: {keyword} {rule} does not allow {value}"));
            }
        }
        Ok(())
    }
}

fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_forbids_is_found() {
        let schema = Schema::parse(
            r##"{"oneOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}],"$defs":{
                "a":{"type":"object","properties":{"event":{"const":"a"},"n":{"type":["integer","null"],"minimum":0}},
                     "required":["event","n"]},
                "b":{"type":"object","properties":{"event":{"const":"b"}},"required":["event"]}}}"##,
        );
        for fine in [json!({"event":"a","n":0}), json!({"event":"a","n":null,"new":1}), json!({"event":"b"})]
        {
            assert_eq!(schema.problem(&fine), None, "{fine}");
        }
        for wrong in [
            json!({"event":"a"}),
            json!({"event":"a","n":-1}),
            json!({"event":"a","n":"0"}),
            json!({"event":"c"}),
            json!(1),
        ] {
            assert!(schema.problem(&wrong).is_some(), "{wrong}");
        }
        assert!(Schema::parse(r#"{"pattern":"x"}"#).problem(&json!("x")).is_some(), "an unknown keyword");
    }
}
