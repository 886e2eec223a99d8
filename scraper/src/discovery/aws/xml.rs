//! Answers in XML, as a plain tree with bounds. Entities of a document type are not known, so nothing expands.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// Most elements within each other; the documents have about ten.
const DEPTH_MAX: usize = 32;
/// Most elements.
const ELEMENTS_MAX: usize = 5_000_000;

/// An element.
#[derive(Debug, Default)]
pub(super) struct Element {
    /// Without a namespace.
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// The root of a document.
    ///
    /// # Errors
    /// When it is not well-formed, or larger than it may be.
    pub(super) fn parse(xml: &[u8]) -> Result<Self, String> {
        let xml = std::str::from_utf8(xml).map_err(|error| error.to_string())?;
        let mut reader = Reader::from_str(xml);
        reader.config_mut().expand_empty_elements = true;
        let mut open: Vec<Element> = Vec::new();
        let mut count = 0_usize;
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => {
                    count += 1;
                    if open.len() >= DEPTH_MAX || count > ELEMENTS_MAX {
                        return Err(format!(
                            "more than {DEPTH_MAX} elements within each other or {ELEMENTS_MAX} in all"
                        ));
                    }
                    let name: &str = start.local_name().into_inner();
                    open.push(Element { name: name.to_owned(), ..Element::default() });
                }
                Event::End(_) => {
                    let done = open.pop().ok_or_else(|| "an end without a beginning".to_owned())?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
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

    /// What is in it, where it has no elements.
    pub(super) fn value(&self) -> &str {
        self.text.trim()
    }

    /// The element at `path` (`a/b`).
    pub(super) fn find(&self, path: &str) -> Option<&Element> {
        path.split('/')
            .try_fold(self, |element, name| element.children.iter().find(|child| child.name == name))
    }

    /// The text at `path`, when there is an element.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.find(path).map(Element::value)
    }

    /// The elements of the list at `path`, whatever they are called.
    pub(super) fn list(&self, path: &str) -> impl Iterator<Item = &Element> {
        self.find(path).into_iter().flat_map(|list| &list.children)
    }
}

fn add_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_trees() {
        let xml = "<?xml version=\"1.0\"?><a xmlns=\"x\"><b><item>1 &lt;&#65;</item><item/></b><!-- c --><d><![CDATA[<e>]]></d></a>";
        let root = Element::parse(xml.as_bytes()).unwrap();
        assert_eq!(root.name, "a");
        let items: Vec<&str> = root.list("b").map(Element::value).collect();
        assert_eq!(items, ["1 <A", ""]);
        assert_eq!((root.get("d"), root.get("b/x")), (Some("<e>"), None));
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        for xml in ["", "<a>", "</a>", "<a></b>", "<a>&lol;</a>", "no xml", "{\"a\": 1}"] {
            assert!(Element::parse(xml.as_bytes()).is_err(), "{xml}");
        }
        let deep = "<a>".repeat(40) + &"</a>".repeat(40);
        assert!(Element::parse(deep.as_bytes()).unwrap_err().contains("within each other"));
        assert!(Element::parse(&[0xff, 0xfe]).is_err());
    }
}
