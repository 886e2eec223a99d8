//! Eureka's list of applications: XML to a target group.
//!
//! The document is read into a plain tree, with bounds on depth and number of elements; entities of a document type are
//! not known, so nothing expands. What is missing is empty or 0, what is no number where one belongs makes the answer
//! invalid, as in Go's reader. Texts of metadata are kept as written, entities included: so does Prometheus.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use model::Labels;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::discovery::TargetGroup;
use crate::discovery::client::{join_host_port, sanitize_label_name};

/// The one group.
const SOURCE: &str = "eureka";
/// Most elements within each other; the documents have six.
const DEPTH_MAX: usize = 32;
/// Most elements.
const ELEMENTS_MAX: usize = 4_000_000;
const PREFIX: &str = "__meta_eureka_app_instance_";

/// An element and what is in it.
#[derive(Debug, Default)]
struct Element<'a> {
    /// Without a namespace.
    name: String,
    attributes: Vec<(String, String)>,
    /// Its own text.
    text: String,
    /// All between its tags, as written.
    inner: &'a str,
    children: Vec<Element<'a>>,
}

/// The targets of a whole registry.
pub(super) fn group(xml: &[u8]) -> Result<TargetGroup, String> {
    let xml = std::str::from_utf8(xml).map_err(|error| error.to_string())?;
    let root = tree(xml)?;
    let mut targets = Vec::new();
    for app in root.all("application") {
        for instance in app.all("instance") {
            targets.push(target(app.text("name"), instance)?);
        }
    }
    Ok(TargetGroup { source: SOURCE.to_owned(), targets, labels: Labels::empty() })
}

fn target(app: &str, instance: &Element<'_>) -> Result<Labels, String> {
    let port = instance.child("port").map(Port::read).transpose()?;
    let secure_port = instance.child("securePort").map(Port::read).transpose()?;
    let id = instance.text("instanceId");
    let host = instance.text("hostName");
    let mut labels = BTreeMap::from([
        ("__address__".to_owned(), join_host_port(host, port.as_ref().map_or(80, |port| port.number))),
        ("instance".to_owned(), id.to_owned()),
        ("__meta_eureka_app_name".to_owned(), app.to_owned()),
    ]);
    let mut set = |name: &str, value: String| labels.insert(format!("{PREFIX}{name}"), value);
    let texts = [
        ("hostname", "hostName"),
        ("homepage_url", "homePageUrl"),
        ("statuspage_url", "statusPageUrl"),
        ("healthcheck_url", "healthCheckUrl"),
        ("ip_addr", "ipAddr"),
        ("vip_address", "vipAddress"),
        ("secure_vip_address", "secureVipAddress"),
        ("status", "status"),
        ("id", "instanceId"),
    ];
    for (label, element) in texts {
        set(label, instance.text(element).to_owned());
    }
    set("country_id", number(instance.text("countryId"))?.to_string());
    for (label, port) in [("port", port), ("secure_port", secure_port)] {
        if let Some(port) = port {
            set(label, port.number.to_string());
            set(&format!("{label}_enabled"), port.is_enabled.to_string());
        }
    }
    if let Some(center) = instance.child("dataCenterInfo") {
        set("datacenterinfo_name", center.text("name").to_owned());
        for item in center.metadata() {
            set(
                &format!("datacenterinfo_metadata_{}", sanitize_label_name(&item.name)),
                item.inner.to_owned(),
            );
        }
    }
    for item in instance.metadata() {
        set(&format!("metadata_{}", sanitize_label_name(&item.name)), item.inner.to_owned());
    }
    Ok(Labels::from_pairs(labels))
}

struct Port {
    number: i64,
    is_enabled: bool,
}

impl Port {
    fn read(element: &Element<'_>) -> Result<Self, String> {
        let enabled = element.attributes.iter().find(|(name, _)| name == "enabled");
        let is_enabled = match enabled.map_or("", |(_, value)| value.trim()) {
            // The words of Go's `strconv.ParseBool`.
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => return Err(format!("{other:?} is neither true nor false")),
        };
        Ok(Self { number: number(&element.text)?, is_enabled })
    }
}

fn number(text: &str) -> Result<i64, String> {
    match text.trim() {
        "" => Ok(0),
        text => text.parse().map_err(|_| format!("{text:?} is no number")),
    }
}

impl<'a> Element<'a> {
    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Element<'a>> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The last one of that name, as in Go.
    fn child(&self, name: &str) -> Option<&Element<'a>> {
        self.children.iter().rev().find(|child| child.name == name)
    }

    fn text(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| child.text.as_str())
    }

    fn metadata(&self) -> impl Iterator<Item = &Element<'a>> {
        self.child("metadata").into_iter().flat_map(|metadata| &metadata.children)
    }
}

/// Reads the document.
fn tree(xml: &str) -> Result<Element<'_>, String> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut elements = 0_usize;
    // Open elements and where what is in them begins.
    let mut open: Vec<(Element<'_>, usize)> = Vec::new();
    loop {
        let before = position(&reader)?;
        let event = reader.read_event().map_err(|error| error.to_string())?;
        match event {
            Event::Start(start) => {
                elements += 1;
                if open.len() >= DEPTH_MAX || elements > ELEMENTS_MAX {
                    return Err(format!(
                        "more than {DEPTH_MAX} elements within each other or {ELEMENTS_MAX} in all"
                    ));
                }
                open.push((element(&start)?, position(&reader)?));
            }
            Event::End(_) => {
                let Some((mut done, began)) = open.pop() else {
                    return Err("an end without a beginning".to_owned());
                };
                // An empty element has its end where it begins.
                done.inner = xml.get(began..before).unwrap_or_default();
                match open.last_mut() {
                    Some((parent, _)) => parent.children.push(done),
                    None => return Ok(done),
                }
            }
            Event::Text(text) => add_text(&mut open, &text.xml10_content()),
            Event::CData(text) => add_text(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let name: &str = &reference;
                let resolved = match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(character) => character.to_string(),
                    None => resolve_predefined_entity(name)
                        .ok_or_else(|| format!("unknown entity {name:?}"))?
                        .to_owned(),
                };
                add_text(&mut open, &resolved);
            }
            Event::Eof => return Err("unexpected end of the document".to_owned()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> Result<usize, String> {
    usize::try_from(reader.buffer_position()).map_err(|error| error.to_string())
}

fn add_text(open: &mut [(Element<'_>, usize)], text: &str) {
    if let Some((element, _)) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn element<'a>(start: &BytesStart<'_>) -> Result<Element<'a>, String> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        attributes.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
    }
    Ok(Element { name: start.local_name().as_ref().to_owned(), attributes, ..Element::default() })
}
