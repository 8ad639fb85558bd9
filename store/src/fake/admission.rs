//! Which writes the fake server takes: ValidatingAdmissionPolicies, as the objects of a deployment have them.

use cel::{Context, Program};
use serde_json::{Map, Value, json};

use super::access::{Asked, Caller};
use super::objects::Refusal;

/// Where a request says which node its token is for.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

/// What an object is before a write and after it; null where it is not.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) old: Value,
    pub(super) new: Value,
}

/// The policies that are bound.
#[derive(Debug)]
pub(super) struct Admission {
    policies: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    name: String,
    rules: Vec<Value>,
    conditions: Vec<Program>,
    variables: Vec<(String, Program)>,
    validations: Vec<(Program, String)>,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Admission {
    /// The policies among these objects that a binding has deny.
    ///
    /// # Panics
    /// Where an expression cannot be read.
    pub(super) fn of(objects: &[Value]) -> Self {
        let denies = |policy: &Value| {
            objects.iter().any(|it| {
                it["kind"] == "ValidatingAdmissionPolicyBinding"
                    && it["spec"]["policyName"] == policy["metadata"]["name"]
                    && list(&it["spec"]["validationActions"]).any(|action| action == "Deny")
            })
        };
        let policies = objects
            .iter()
            .filter(|it| it["kind"] == "ValidatingAdmissionPolicy");
        Self {
            policies: policies.filter(|it| denies(it)).map(Policy::of).collect(),
        }
    }

    pub(super) fn check(&self, caller: Caller<'_>, asked: &Asked<'_>, write: &Write) -> Result<(), Refusal> {
        let operation = match asked.verb {
            "create" => "CREATE",
            "delete" => "DELETE",
            _ => "UPDATE",
        };
        let mut policies = self.policies.iter().filter(|it| it.matches(operation, asked));
        policies.try_for_each(|policy| policy.check(caller, (operation, asked), write))
    }
}

fn compiled(of: &Value) -> Program {
    let expression = text(&of["expression"]);
    Program::compile(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

impl Policy {
    fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let variable = |it: &Value| (text(&it["name"]), compiled(it));
        let validation = |it: &Value| (compiled(it), text(&it["message"]));
        Self {
            name: text(&object["metadata"]["name"]),
            rules: list(&spec["matchConstraints"]["resourceRules"])
                .cloned()
                .collect(),
            conditions: list(&spec["matchConditions"]).map(compiled).collect(),
            variables: list(&spec["variables"]).map(variable).collect(),
            validations: list(&spec["validations"]).map(validation).collect(),
        }
    }

    fn matches(&self, operation: &str, asked: &Asked<'_>) -> bool {
        let has = |values: &Value, wanted: &str| list(values).any(|it| it == wanted || it == "*");
        self.rules.iter().any(|rule| {
            has(&rule["operations"], operation)
                && has(&rule["apiGroups"], asked.group)
                && has(&rule["resources"], &asked.full())
        })
    }

    /// Denies what does not hold, or cannot be judged (`failurePolicy: Fail`).
    fn check(
        &self,
        caller: Caller<'_>,
        (operation, asked): (&str, &Asked<'_>),
        write: &Write,
    ) -> Result<(), Refusal> {
        let mut user = json!({"username": caller.user});
        if !caller.node.is_empty() {
            user["extra"] = json!({NODE_CLAIM: [caller.node]});
        }
        let request = json!({"operation": operation, "userInfo": user});
        let mut variables = Map::new();
        let judge = |program: &Program, variables: &Map<String, Value>| {
            let mut context = Context::default();
            for (name, value) in [
                ("request", &request),
                ("object", &write.new),
                ("oldObject", &write.old),
            ] {
                context.add_variable(name, value).ok()?;
            }
            context.add_variable("variables", variables).ok()?;
            program.execute(&context).ok()?.json().ok()
        };
        if !self
            .conditions
            .iter()
            .all(|it| judge(it, &variables) == Some(json!(true)))
        {
            return Ok(());
        }
        for (name, program) in &self.variables {
            if let Some(value) = judge(program, &variables) {
                variables.insert(name.clone(), value);
            }
        }
        let broken = |(program, _): &&(Program, String)| judge(program, &variables) != Some(json!(true));
        let Some((_, message)) = self.validations.iter().find(broken) else {
            return Ok(());
        };
        let name = &self.name;
        Err(asked.forbidden(&format!(
            "ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {message}"
        )))
    }
}
