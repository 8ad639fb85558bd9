//! `convert`, `validate`: manifests without a datastore.

use manx_api::Resource;
use manx_api::ipam::IpPool;
use manx_api::manifest::{self, ManifestError};
use serde_json::Value;

use crate::calico::{self, Converted, blocks};
use crate::cli::{ConvertArgs, FileArgs, ManifestFormat};
use crate::error::{CtlError, Result};
use crate::output;
use crate::resources::{self, texts};

/// `validate`.
pub(crate) fn validate(args: &FileArgs) -> Result<()> {
    let right = resources::read(&args.file, &args.namespace.namespace)?;
    let lines: String = right
        .iter()
        .map(|resource| format!("{} is right\n", resource.key()))
        .collect();
    output::emit(&lines)
}

/// `convert`. Nothing is printed to standard output unless all can be said in Manx's words, or the user goes on without the rest;
/// and never a part of what Calico says of addresses.
pub(crate) fn convert(args: &ConvertArgs) -> Result<()> {
    let mut read = Read::default();
    for path in &args.file {
        for (file, text) in texts(path)? {
            let documents = documents(&file, &text)?;
            if documents.is_empty() {
                return Err(CtlError::Empty { path: path.clone() });
            }
            read.documents(&file, documents, &args.namespace.namespace);
        }
    }
    let blocks = read.blocks(args.blocks_of.as_deref());
    let Read {
        mut converted,
        mut errors,
        failed,
        all,
        ..
    } = read;
    match blocks {
        Ok(blocks) => converted.extend(blocks),
        Err(mut wrong) => {
            errors.append(&mut wrong);
            return Err(CtlError::Manifest { errors });
        }
    }
    if failed > 0 && !args.keep_going {
        return Err(CtlError::Manifest { errors });
    }
    output::emit(&written(&converted, args.output)?)?;
    errors
        .iter()
        .for_each(|error| anstream::eprintln!("manxctl: {error}"));
    resources::partly(failed, all)
}

/// What was read so far.
#[derive(Default)]
struct Read {
    converted: Vec<Resource>,
    errors: Vec<ManifestError>,
    /// How many documents there were, and of how many nothing came.
    all: usize,
    failed: usize,
    /// Calico's blocks, with their file and number.
    blocks: Vec<(String, usize, Value)>,
}

impl Read {
    fn documents(&mut self, file: &str, documents: Vec<Value>, namespace: &str) {
        self.all += documents.len();
        for (index, document) in documents.into_iter().enumerate() {
            if calico::is_block(&document) {
                self.blocks.push((file.to_owned(), index + 1, document));
                continue;
            }
            match one(file, index + 1, &document, namespace) {
                Ok(resource) => self.converted.extend(resource),
                Err(mut wrong) => {
                    self.errors.append(&mut wrong);
                    self.failed += 1;
                }
            }
        }
    }

    /// Calico's blocks in Manx's words: all of them, or what is in the way.
    fn blocks(&self, node: Option<&str>) -> std::result::Result<Vec<Resource>, Vec<ManifestError>> {
        let given = self.blocks.iter().enumerate();
        let given: Vec<(usize, Value)> = given.map(|(place, (.., block))| (place, block.clone())).collect();
        let pools: Vec<IpPool> = self
            .converted
            .iter()
            .filter_map(|resource| IpPool::try_from(resource.clone()).ok())
            .collect();
        let found = blocks::convert(&given, &pools, node);
        let place = |place: usize| {
            self.blocks
                .get(place)
                .map(|(file, number, block)| (file, *number, block))
        };
        for (at, field, what) in &found.notes {
            if let Some((file, _, block)) = place(*at) {
                tell(file, block, field, what);
            }
        }
        let refused = found.refused.into_iter().filter_map(|(at, refused)| {
            let (file, number, _) = place(at)?;
            Some(wrong(file, Some(number), &refused.field, refused.what))
        });
        let mut errors: Vec<ManifestError> = refused.collect();
        let mut blocks = Vec::new();
        for block in found.blocks {
            let block = Resource::IpBlock(block);
            match manifest::load("Calico's blocks", &output::json(&block).unwrap_or_default()) {
                Ok(_) => blocks.push(block),
                Err(mut wrong) => errors.append(&mut wrong),
            }
        }
        if errors.is_empty() {
            Ok(blocks)
        } else {
            Err(errors)
        }
    }
}

/// Says on standard error what became of a field of a resource; of all of it, where the field is empty.
fn tell(file: &str, resource: &Value, field: &str, what: &str) {
    let name = resource["metadata"]["name"].as_str().unwrap_or_default();
    let kind = resource["kind"].as_str().unwrap_or_default();
    let colon = if field.is_empty() { "" } else { ": " };
    anstream::eprintln!("{file}: {kind}/{name}: {field}{colon}{what}");
}

/// A file's resources, those of lists by themselves.
fn documents(file: &str, text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| CtlError::Manifest {
        errors: vec![wrong(file, None, "", error.without_snippet().to_string())],
    })?;
    let resources =
        documents
            .into_iter()
            .flat_map(|mut document| match document.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                Some(
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_),
                )
                | None => {
                    vec![document]
                }
            });
    Ok(resources.filter(|resource| !resource.is_null()).collect())
}

/// A resource in Manx's words, checked; what is not Calico's is only checked.
fn one(
    file: &str,
    number: usize,
    document: &Value,
    namespace: &str,
) -> std::result::Result<Option<Resource>, Vec<ManifestError>> {
    let mut ours = document.clone();
    if calico::is_calicos(document) {
        let Converted { resource, notes } = calico::convert(document)
            .map_err(|refused| vec![wrong(file, Some(number), &refused.field, refused.what)])?;
        notes
            .iter()
            .for_each(|(field, note)| tell(file, document, field, note));
        match resource {
            Some(resource) => ours = resource,
            None => return Ok(None),
        }
    }
    let loaded = manifest::load_into(file, &ours.to_string(), Some(namespace));
    loaded.map(|mut resources| resources.pop()).map_err(|mut errors| {
        for error in &mut errors {
            // The line is that of our own text.
            (error.line, error.document) = (None, Some(number));
        }
        errors
    })
}

fn wrong(file: &str, document: Option<usize>, field: &str, message: String) -> ManifestError {
    ManifestError {
        file: file.to_owned(),
        line: None,
        document,
        field: field.to_owned(),
        value: None,
        message,
    }
}

fn written(resources: &[Resource], format: ManifestFormat) -> Result<String> {
    match format {
        ManifestFormat::Json => output::json(&resources::list(resources)),
        ManifestFormat::Yaml => {
            let documents = resources
                .iter()
                .map(output::yaml)
                .collect::<Result<Vec<String>>>()?;
            Ok(documents.join("---\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALICO: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: main, uid: 6d1b, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {cidr: 10.1.0.0/16, ipipMode: CrossSubnet, vxlanMode: Never, natOutgoing: true, blockSize: 26, nodeSelector: all()}
- apiVersion: projectcalico.org/v3
  kind: Profile
  metadata: {name: kns.default}
  spec: {ingress: [{action: Allow}]}
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.web, namespace: shop}
spec:
  tier: default
  order: 10
  selector: app == 'web'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'front', notNets: [10.9.0.0/16]}, destination: {ports: [80, '8000:8010']}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
";

    fn all(text: &str) -> Vec<std::result::Result<Option<Resource>, Vec<ManifestError>>> {
        let documents = documents("calico.yaml", text).unwrap();
        let numbered = documents.iter().enumerate();
        numbered
            .map(|(i, document)| one("calico.yaml", i + 1, document, "default"))
            .collect()
    }

    #[test]
    fn what_is_converted_is_right_and_what_is_not_calicos_stays() {
        let converted: Vec<Resource> = all(CALICO).into_iter().filter_map(|one| one.unwrap()).collect();
        insta::assert_snapshot!(written(&converted, ManifestFormat::Yaml).unwrap());
        for format in [ManifestFormat::Yaml, ManifestFormat::Json] {
            let text = written(&converted, format).unwrap();
            assert_eq!(manifest::load("converted", &text).unwrap(), converted);
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_document_and_field() {
        let text = CALICO
            .replace("natOutgoing", "natOutgoin")
            .replace("role ==", "role =");
        let told: Vec<String> = all(&text)
            .into_iter()
            .filter_map(std::result::Result::err)
            .flatten()
            .map(|error| error.to_string())
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("calico.yaml: document 1: spec.natOutgoin: "),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("calico.yaml: document 3: spec.ingress[0].source.selector: "),
            "{told:?}"
        );
    }

    #[test]
    fn no_document_panics() {
        for text in [
            "",
            "- 1",
            "a",
            "kind: {}",
            "items: 1",
            "apiVersion: projectcalico.org/v3",
            "items: [a, null]",
        ] {
            for document in documents("x", text).unwrap() {
                one("x", 1, &document, "default").unwrap_err();
            }
        }
        assert!(documents("x", "a: [").is_err());
    }
}
