//! What is on the simulated disk: a tree of directories over files, each with what programs see now and what a loss of
//! power would leave.
//!
//! A directory remembers the entries it had at its last sync, a file its bytes; so what is durable in a directory goes along
//! when the directory is renamed, and a hard link shares its bytes. Nodes are never freed: an open file stays readable
//! after its removal.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A node of the disk.
pub(super) type Id = usize;

type Entries = BTreeMap<OsString, Id>;

const ROOT: Id = 0;

#[derive(Clone, Debug)]
enum Node {
    Dir { now: Entries, durable: Entries },
    File(FileNode),
}

/// Bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) bytes: Vec<u8>,
    /// So many of them are synced, where nothing was replaced.
    synced_len: usize,
    /// What was synced before the file was cut into it.
    replaced: Option<Vec<u8>>,
}

impl FileNode {
    pub(super) fn sync(&mut self) {
        self.synced_len = self.bytes.len();
        self.replaced = None;
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.synced_len && self.replaced.is_none() {
            self.replaced = Some(self.bytes[..self.synced_len].to_vec());
        }
        self.bytes.truncate(len);
        self.synced_len = self.synced_len.min(len);
    }

    /// The bytes that are durable for sure.
    fn synced(&self) -> &[u8] {
        self.replaced.as_deref().unwrap_or(&self.bytes[..self.synced_len])
    }

    /// Loses what is not synced. `tail` says what becomes of so many appended bytes; bytes that replaced synced ones stay
    /// or not as a whole.
    fn lose(&mut self, replaced_stays: bool, tail: impl FnOnce(usize) -> Loss) {
        let synced = self.synced().len();
        if self.bytes.starts_with(self.synced()) {
            match tail(self.bytes.len() - synced) {
                Loss::Keep(kept) => self.bytes.truncate(synced + kept),
                Loss::Zeros(from) => self.bytes[synced + from..].fill(0),
            }
        } else if !replaced_stays {
            self.bytes = self.synced().to_vec();
        }
        self.sync();
    }
}

/// What becomes of bytes that were not synced.
pub(super) enum Loss {
    /// So many of them stay.
    Keep(usize),
    /// The length stays; from here on no bytes had been written.
    Zeros(usize),
}

/// A rename whose directories were not both synced since.
#[derive(Clone, Debug)]
struct Rename {
    node: Id,
    from: (Id, OsString),
    to: (Id, OsString),
}

/// The tree.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    renames: Vec<Rename>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { nodes: vec![Node::Dir { now: Entries::new(), durable: Entries::new() }], renames: Vec::new() }
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    })
}

impl Disk {
    fn entries(&self, dir: Id) -> io::Result<&Entries> {
        match &self.nodes[dir] {
            Node::Dir { now, .. } => Ok(now),
            Node::File(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> io::Result<&mut Entries> {
        match &mut self.nodes[dir] {
            Node::Dir { now, .. } => Ok(now),
            Node::File(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<Id> {
        names(path).try_fold(ROOT, |id, name| self.entries(id)?.get(&name).copied().ok_or_else(not_found))
    }

    /// The directory of `path`, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(Id, OsString)> {
        let name = path.file_name().ok_or_else(not_found)?.to_owned();
        let dir = self.node(path.parent().unwrap_or(Path::new("/")))?;
        self.entries(dir)?;
        Ok((dir, name))
    }

    pub(super) fn file_id(&self, path: &Path) -> io::Result<Id> {
        let id = self.node(path)?;
        match self.nodes[id] {
            Node::File(_) => Ok(id),
            Node::Dir { .. } => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    /// # Panics
    /// When `id` is a directory.
    pub(super) fn file(&self, id: Id) -> &FileNode {
        match &self.nodes[id] {
            Node::File(file) => file,
            Node::Dir { .. } => panic!("invariant: handles are of files"),
        }
    }

    /// # Panics
    /// When `id` is a directory.
    pub(super) fn file_mut(&mut self, id: Id) -> &mut FileNode {
        match &mut self.nodes[id] {
            Node::File(file) => file,
            Node::Dir { .. } => panic!("invariant: handles are of files"),
        }
    }

    /// Makes what is missing of `path`, durably.
    pub(super) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            at = match self.entries(at)?.get(&name).copied() {
                Some(id) => id,
                None => {
                    let id = self.nodes.len();
                    self.nodes.push(Node::Dir { now: Entries::new(), durable: Entries::new() });
                    if let Node::Dir { now, durable } = &mut self.nodes[at] {
                        now.insert(name.clone(), id);
                        durable.insert(name, id);
                    }
                    id
                }
            };
        }
        self.entries(at).map(|_| ())
    }

    /// An empty file at `path`: a new one, or the old one emptied.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<Id> {
        let (dir, name) = self.place(path)?;
        if self.entries(dir)?.contains_key(&name) {
            let id = self.file_id(path)?;
            self.file_mut(id).truncate(0);
            return Ok(id);
        }
        let id = self.nodes.len();
        self.nodes.push(Node::File(FileNode::default()));
        self.entries_mut(dir)?.insert(name, id);
        Ok(id)
    }

    /// A file with these bytes, all of it durable.
    pub(super) fn put(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        self.make_dirs(path.parent().unwrap_or(Path::new("/")))?;
        let id = self.create(path)?;
        let file = self.file_mut(id);
        file.bytes = bytes;
        file.sync();
        let (dir, name) = self.place(path)?;
        if let Node::Dir { durable, .. } = &mut self.nodes[dir] {
            durable.insert(name, id);
        }
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.file_id(from)?;
        let (dir, name) = self.place(to)?;
        let entries = self.entries_mut(dir)?;
        if entries.contains_key(&name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        entries.insert(name, id);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.node(from)?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        match self.entries(to.0)?.get(&to.1).map(|id| (*id, &self.nodes[*id], &self.nodes[node])) {
            Some((id, ..)) if id == node => return Ok(()),
            None | Some((_, Node::File(_), Node::File(_))) => {}
            Some((_, Node::Dir { now, .. }, Node::Dir { .. })) if now.is_empty() => {}
            Some((_, Node::Dir { .. }, Node::Dir { .. })) => {
                return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
            }
            Some((_, Node::Dir { .. }, Node::File(_))) => {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Some((_, Node::File(_), Node::Dir { .. })) => {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
        }
        self.entries_mut(from.0)?.remove(&from.1);
        self.entries_mut(to.0)?.insert(to.1.clone(), node);
        self.renames.push(Rename { node, from, to });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file_id(path)?;
        let (dir, name) = self.place(path)?;
        self.entries_mut(dir)?.remove(&name);
        Ok(())
    }

    /// # Errors
    /// When something is in it.
    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.node(path)?;
        if !self.entries(id)?.is_empty() {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
        let (dir, name) = self.place(path)?;
        self.entries_mut(dir)?.remove(&name);
        Ok(())
    }

    /// Names in a directory: of files or of directories.
    pub(super) fn list(&self, path: &Path, files: bool) -> io::Result<Vec<String>> {
        let entries = self.entries(self.node(path)?)?;
        let wanted = entries.iter().filter(|(_, id)| matches!(self.nodes[**id], Node::File(_)) == files);
        Ok(wanted.filter_map(|(name, _)| Some(name.to_str()?.to_owned())).collect())
    }

    /// What a sync of a directory does; one that fails may have done a part: new names are durable, and removed ones
    /// still are.
    pub(super) fn sync_dir(&mut self, path: &Path, fails: bool) -> io::Result<()> {
        let id = self.node(path)?;
        self.entries(id)?;
        if let Node::Dir { now, durable } = &mut self.nodes[id] {
            if !fails {
                durable.retain(|name, _| now.contains_key(name));
            }
            durable.extend(now.iter().map(|(name, id)| (name.clone(), *id)));
        }
        let mut renames = std::mem::take(&mut self.renames);
        renames.retain(|rename| self.is_pending(rename));
        self.renames = renames;
        Ok(())
    }

    /// Whether a loss of power may show either side of a rename.
    fn is_pending(&self, rename: &Rename) -> bool {
        let of = |(dir, name): &(Id, OsString)| match &self.nodes[*dir] {
            Node::Dir { now, durable } => (now.get(name).copied(), durable.get(name).copied()),
            Node::File(_) => (None, None),
        };
        let ((from_now, from_durable), (to_now, to_durable)) = (of(&rename.from), of(&rename.to));
        from_durable == Some(rename.node)
            && from_now != Some(rename.node)
            && to_now == Some(rename.node)
            && to_durable != Some(rename.node)
    }

    /// All files, by path.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = todo.pop() {
            match &self.nodes[id] {
                Node::File(_) => found.push(path),
                Node::Dir { now, .. } => todo.extend(now.iter().map(|(name, id)| (path.join(name), *id))),
            }
        }
        found.sort_unstable();
        found
    }

    /// Bytes of all files that have a name, each counted once.
    pub(super) fn used(&self) -> usize {
        let mut seen = BTreeSet::new();
        let mut todo = vec![ROOT];
        let mut used = 0;
        while let Some(id) = todo.pop() {
            match &self.nodes[id] {
                Node::File(file) if seen.insert(id) => used += file.bytes.len(),
                Node::File(_) => {}
                Node::Dir { now, .. } => todo.extend(now.values()),
            }
        }
        used
    }

    /// Power goes: names as they were synced; of every unsynced tail `keep_of_256 / 256`.
    pub(super) fn lose_power(&mut self, keep_of_256: u8) {
        for node in &mut self.nodes {
            match node {
                Node::Dir { now, durable } => now.clone_from(durable),
                Node::File(file) => {
                    file.lose(false, |tail| Loss::Keep(tail * usize::from(keep_of_256) / 256));
                }
            }
        }
        self.renames.clear();
    }

    /// Power goes, and the disk had got to some files and names and not to others. A rename is there or not as a whole.
    pub(super) fn lose_power_unevenly(&mut self, mut pick: impl FnMut(usize) -> usize) {
        let mut decided = BTreeSet::new();
        for rename in std::mem::take(&mut self.renames) {
            if !self.is_pending(&rename) || decided.contains(&rename.from) || decided.contains(&rename.to) {
                continue;
            }
            if pick(2) == 0 {
                // It did not happen: the old name is back, and whatever it replaced.
                for (dir, name) in [&rename.from, &rename.to] {
                    if let Node::Dir { now, durable } = &mut self.nodes[*dir] {
                        match durable.get(name) {
                            Some(id) => now.insert(name.clone(), *id),
                            None => now.remove(name),
                        };
                    }
                }
            }
            decided.extend([rename.from, rename.to]);
        }
        for id in 0..self.nodes.len() {
            match &mut self.nodes[id] {
                Node::Dir { now, durable } => {
                    let all: BTreeSet<OsString> = now.keys().chain(durable.keys()).cloned().collect();
                    for name in all {
                        if now.get(&name) == durable.get(&name)
                            || decided.contains(&(id, name.clone()))
                            || pick(2) == 0
                        {
                            continue;
                        }
                        match durable.get(&name) {
                            Some(id) => now.insert(name, *id),
                            None => now.remove(&name),
                        };
                    }
                    durable.clone_from(now);
                }
                Node::File(file) => {
                    let replaced_stays = pick(2) == 0;
                    file.lose(replaced_stays, |tail| match pick(5) {
                        0 | 1 => Loss::Keep(tail),
                        2 => Loss::Keep(0),
                        3 => Loss::Keep(pick(tail + 1)),
                        _ => Loss::Zeros(pick(tail + 1)),
                    });
                }
            }
        }
    }
}
