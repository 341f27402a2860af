//! Files with holes keep them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use haul_tests::harness::{Pair, ServerOptions, WAYS};
use haul_tests::tree::assert_same;

#[test]
fn files_with_holes_take_no_more_room_at_the_other_side() {
    let pair = Pair::start(ServerOptions::default());
    for way in WAYS {
        let source = pair.from(way).join("tree");
        fs::create_dir_all(&source).unwrap();
        // Data in the middle and a hole at the end; a small one; one that is nothing but a hole.
        for (name, size, data) in
            [("image", 48 << 20, Some(17 << 20)), ("small", 100_000, Some(8192)), ("hole", 5 << 20, None)]
        {
            let file = File::create(source.join(name)).unwrap();
            file.set_len(size).unwrap();
            if let Some(offset) = data {
                file.write_all_at(&[7; 5000], offset).unwrap();
            }
        }
        let outcome = pair.copy(way, &["tree"], "arrived").run();
        outcome.assert_success();
        let arrived = pair.to(way).join("arrived");
        assert_same(&source, &arrived);
        for name in ["image", "small", "hole"] {
            let room = |root: &std::path::Path| fs::metadata(root.join(name)).unwrap().blocks() * 512;
            assert!(room(&source) < 64 << 10, "the file system of the test keeps holes");
            assert!(room(&arrived) <= room(&source) + 8192, "{name}: {} there", room(&arrived));
        }
    }
}
