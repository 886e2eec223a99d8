use super::*;

fn write(fs: &FaultyFs, path: &str, bytes: &[u8], sync: bool) {
    let mut file = fs.create(Path::new(path)).unwrap();
    file.append(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

fn dirs(fs: &FaultyFs, paths: &[&str]) {
    for path in paths {
        fs.create_dir_all(Path::new(path)).unwrap();
    }
}

fn read(fs: &FaultyFs, path: &str) -> Option<String> {
    fs.read(Path::new(path)).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn fail(at: u64, kind: FaultKind) -> Option<Fault> {
    Some(Fault { at, times: 1, kind })
}

#[test]
fn power_loss_keeps_only_what_was_synced() {
    let fs = FaultyFs::new();
    let (dir, path) = (Path::new("/d"), Path::new("/d/a"));
    dirs(&fs, &["/d"]);
    let mut file = fs.create(path).unwrap();
    file.append(b"kept").unwrap();
    file.sync().unwrap();
    assert!(fs.lose_power(0).read(path).is_none(), "the name was not synced");
    fs.sync_dir(dir).unwrap();
    file.append(b"lost").unwrap();
    assert_eq!(fs.lose_power(0).read(path).unwrap(), b"kept");
    assert_eq!(fs.lose_power(128).read(path).unwrap(), b"keptlo");
    assert_eq!(fs.after_kill().read(path).unwrap(), b"keptlost");
    // Cut into what was synced, and written anew: the old bytes or the new ones.
    file.truncate(2).unwrap();
    file.append(b"new").unwrap();
    assert_eq!(fs.after_kill().read(path).unwrap(), b"kenew");
    assert_eq!(fs.lose_power(255).read(path).unwrap(), b"kept");
    file.sync().unwrap();
    assert_eq!(fs.lose_power(0).read(path).unwrap(), b"kenew");
}

#[test]
fn a_failing_write_is_torn_where_it_is_told() {
    let fs = FaultyFs::new();
    let mut file = fs.create(Path::new("/a")).unwrap();
    fs.fail_at(fail(fs.operations(), FaultKind::NoSpace));
    assert_eq!(file.append(b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&fs, "/a").unwrap(), "12");
    file.append(b"5").unwrap();
    for (of_256, left) in [(0, "125"), (64, "125a"), (255, "125aabc")] {
        fs.fail_at(fail(fs.operations(), FaultKind::Torn(of_256)));
        file.append(b"abcd").unwrap_err();
        assert_eq!(read(&fs, "/a").unwrap(), left);
    }
}

#[test]
fn a_full_disk_takes_what_fits() {
    let fs = FaultyFs::new();
    write(&fs, "/a", b"1234", true);
    fs.hard_link(Path::new("/a"), Path::new("/b")).unwrap();
    assert_eq!(fs.used(), 4, "a link takes no space");
    fs.set_capacity(Some(6));
    let mut file = fs.create(Path::new("/c")).unwrap();
    assert_eq!(file.append(b"567").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&fs, "/c").unwrap(), "56");
    fs.remove(Path::new("/a")).unwrap();
    file.append(b"7").unwrap_err();
    fs.remove(Path::new("/b")).unwrap();
    file.append(b"7").unwrap();
    fs.set_capacity(None);
    file.append(b"89abcdef").unwrap();
    assert_eq!(read(&fs, "/c").unwrap(), "56789abcdef");
}

#[test]
fn reads_fail_by_a_count_of_their_own() {
    let fs = FaultyFs::new();
    dirs(&fs, &["/d"]);
    write(&fs, "/d/a", b"content", true);
    let (operations, path) = (fs.operations(), Path::new("/d/a"));
    let at = fs.open_at(path).unwrap();
    fs.set_read_max(Some(3));
    let life = |at: &dyn ReadAt| -> io::Result<()> {
        fs.list(Path::new("/d"))?;
        fs.list_dirs(Path::new("/d"))?;
        fs.len(path)?;
        fs.open_at(path)?;
        at.read_exact_at(&mut [0; 3], 4)?;
        let mut text = [0; 7];
        fs.open(path)?.read_exact(&mut text)?;
        assert_eq!(&text, b"content", "in pieces");
        Ok(())
    };
    let before = fs.reads();
    life(&*at).unwrap();
    let reads = fs.reads() - before;
    assert_eq!(reads, 9, "the file is read in three pieces");
    for number in 0..reads {
        fs.fail_reads_at(fail(fs.reads() + number, FaultKind::Io));
        assert!(life(&*at).is_err(), "{number}");
    }
    fs.fail_reads_at(None);
    life(&*at).unwrap();
    assert_eq!(fs.operations(), operations, "reads change nothing");
}

#[test]
fn an_open_file_stays_readable_when_it_is_removed() {
    let fs = FaultyFs::new();
    dirs(&fs, &["/d"]);
    write(&fs, "/d/a", b"content", true);
    let file = fs.open_at(Path::new("/d/a")).unwrap();
    fs.remove_dir_all(Path::new("/d")).unwrap();
    write(&fs, "/a", b"another", false);
    let mut text = [0; 4];
    file.read_exact_at(&mut text, 3).unwrap();
    assert_eq!((&text, file.len()), (b"tent", 7));
    let end = file.read_exact_at(&mut text, 4).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut text, u64::MAX).unwrap_err();
}

#[test]
fn what_is_not_there_is_not_found() {
    let fs = FaultyFs::new();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    let path = Path::new("/none/a");
    for kind in [
        kind(fs.create(path).map(|_| ())),
        kind(fs.open(path).map(|_| ())),
        kind(fs.open_at(path).map(|_| ())),
        kind(fs.len(path).map(|_| ())),
        kind(fs.list(Path::new("/none")).map(|_| ())),
        kind(fs.list_dirs(Path::new("/none")).map(|_| ())),
        kind(fs.remove(path)),
        kind(fs.remove_dir_all(Path::new("/none"))),
        kind(fs.sync_dir(Path::new("/none"))),
        kind(fs.rename(path, Path::new("/b"))),
        kind(fs.hard_link(path, Path::new("/b"))),
        kind(fs.lock(path).map(|_| ())),
    ] {
        assert_eq!(kind, io::ErrorKind::NotFound);
    }
    dirs(&fs, &["/d/e"]);
    write(&fs, "/a", b"1", false);
    assert_eq!(kind(fs.remove(Path::new("/d"))), io::ErrorKind::IsADirectory);
    assert_eq!(kind(fs.open(Path::new("/d")).map(|_| ())), io::ErrorKind::IsADirectory);
    assert_eq!(kind(fs.create_dir_all(Path::new("/a/b"))), io::ErrorKind::NotADirectory);
    assert_eq!(kind(fs.hard_link(Path::new("/a"), Path::new("/d"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.rename(Path::new("/a"), Path::new("/d"))), io::ErrorKind::IsADirectory);
    dirs(&fs, &["/f"]);
    assert_eq!(kind(fs.rename(Path::new("/f"), Path::new("/d"))), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs.list(Path::new("/")).unwrap(), ["a"]);
    assert_eq!(fs.list_dirs(Path::new("/")).unwrap(), ["d", "f"]);
    assert_eq!(fs.list_dirs(Path::new("/d")).unwrap(), ["e"]);
}

/// A block as it appears: files and their directory synced, renamed, the parent synced.
#[test]
fn a_renamed_directory_has_what_was_durable_in_it() {
    let fs = FaultyFs::new();
    let (old, new) = (Path::new("/data/new.tmp"), Path::new("/data/new"));
    dirs(&fs, &["/data/new.tmp"]);
    write(&fs, "/data/new.tmp/synced", b"all", true);
    fs.sync_dir(old).unwrap();
    write(&fs, "/data/new.tmp/bytes", b"lost", false);
    write(&fs, "/data/new.tmp/name", b"lost", true);
    fs.rename(old, new).unwrap();
    assert_eq!(read(&fs, "/data/new/name").unwrap(), "lost");
    let lost = fs.lose_power(0);
    assert_eq!(lost.paths(), [Path::new("/data/new.tmp/synced")], "the parent was not synced");
    fs.sync_dir(Path::new("/data")).unwrap();
    let lost = fs.lose_power(0);
    assert_eq!(lost.paths(), [Path::new("/data/new/synced")], "names in the directory were not synced");
    fs.sync_dir(new).unwrap();
    let lost = fs.lose_power(128);
    assert_eq!(read(&lost, "/data/new/bytes").unwrap(), "lo", "the bytes were not");
    assert_eq!(read(&lost, "/data/new/name").unwrap(), "lost");
    // And synced through handles opened under the old name.
    let lost = fs.lose_power(0);
    assert_eq!(read(&lost, "/data/new/bytes").unwrap(), "");
}

#[test]
fn links_share_bytes_and_names_are_durable_one_by_one() {
    let fs = FaultyFs::new();
    dirs(&fs, &["/a", "/b"]);
    let mut file = fs.create(Path::new("/a/x")).unwrap();
    file.append(b"one").unwrap();
    fs.hard_link(Path::new("/a/x"), Path::new("/b/y")).unwrap();
    file.append(b"two").unwrap();
    file.sync().unwrap();
    assert_eq!(read(&fs, "/b/y").unwrap(), "onetwo");
    fs.sync_dir(Path::new("/b")).unwrap();
    assert_eq!(fs.lose_power(0).paths(), [Path::new("/b/y")]);
    fs.remove(Path::new("/a/x")).unwrap();
    assert_eq!(read(&fs, "/b/y").unwrap(), "onetwo");
}

#[test]
fn a_directory_is_removed_file_by_file() {
    let fs = FaultyFs::new();
    dirs(&fs, &["/d/e"]);
    for path in ["/d/1", "/d/2", "/d/e/3"] {
        write(&fs, path, b"1", true);
    }
    let mut left = Vec::new();
    for at in 0..6 {
        let fs = fs.after_kill();
        fs.fail_at(fail(at, FaultKind::Io));
        let removed = fs.remove_dir_all(Path::new("/d"));
        assert_eq!(removed.is_ok(), at == 5, "three files and two directories");
        left.push(fs.paths().len());
    }
    assert_eq!(left, [3, 2, 2, 1, 0, 0]);
    // Without a sync it may come back, whole.
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.sync_dir(Path::new("/d/e")).unwrap();
    fs.remove_dir_all(Path::new("/d")).unwrap();
    assert_eq!(fs.lose_power(0).paths().len(), 3);
    fs.sync_dir(Path::new("/")).unwrap();
    assert!(fs.lose_power(0).paths().is_empty());
}

/// Whatever the disk had got to: a rename is there or not, replaced bytes are old or new, synced ones are there.
#[test]
fn uneven_loss_keeps_synced_bytes_and_whole_renames() {
    let fs = FaultyFs::new();
    dirs(&fs, &["/d"]);
    write(&fs, "/d/a", b"old", true);
    write(&fs, "/d/stays", b"synced", true);
    fs.sync_dir(Path::new("/d")).unwrap();
    write(&fs, "/d/a.tmp", b"newer", true);
    fs.rename(Path::new("/d/a.tmp"), Path::new("/d/a")).unwrap();
    let mut tail = fs.create(Path::new("/d/new")).unwrap();
    tail.append(b"123").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let lost = fs.lose_power_unevenly(seed);
        assert_eq!(read(&lost, "/d/stays").unwrap(), "synced");
        assert!(lost.read(Path::new("/d/a.tmp")).is_none(), "its name was never durable");
        seen.insert((read(&lost, "/d/a").unwrap(), read(&lost, "/d/new")));
        // What is there after the loss is durable.
        assert_eq!(lost.lose_power(0).paths(), lost.paths());
    }
    let of_a: std::collections::BTreeSet<_> = seen.iter().map(|(a, _)| a.as_str()).collect();
    assert_eq!(of_a.into_iter().collect::<Vec<_>>(), ["newer", "old"]);
    let of_new: std::collections::BTreeSet<_> = seen.iter().map(|(_, new)| new.as_deref()).collect();
    for possible in [None, Some(""), Some("1"), Some("123"), Some("1\0\0")] {
        assert!(of_new.contains(&possible), "{possible:?} of {of_new:?}");
    }

    // A directory that was renamed is there under one of its names.
    dirs(&fs, &["/d/b.tmp"]);
    write(&fs, "/d/b.tmp/file", b"1", true);
    fs.sync_dir(Path::new("/d/b.tmp")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.rename(Path::new("/d/b.tmp"), Path::new("/d/b")).unwrap();
    let mut old = 0;
    for seed in 0..50 {
        let lost = fs.lose_power_unevenly(seed);
        let found = ["/d/b.tmp/file", "/d/b/file"].map(|path| lost.read(Path::new(path)).is_some());
        assert!(found[0] != found[1], "{found:?}");
        old += i32::from(found[0]);
    }
    assert!((5..45).contains(&old), "{old}");
}
