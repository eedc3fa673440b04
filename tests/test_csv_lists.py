"""CSV lists of pictures: the table decides what belongs where, and a wrong row is named."""

import numpy as np
import pytest
from layout_files import flat, table, write
from trees import refused

from onecycle.datasets.load import load


def test_a_table_without_splits_gets_a_test_part_drawn(tmp_path):
    write(tmp_path, names := flat(10))
    rows = [[f"./{name}", name[:3]] for name in names]
    listed = load(table(tmp_path / "pets.csv", rows, ("path", "label")))
    folder = load(write(tmp_path / "pets", names))
    assert listed.drawn and listed.digest == folder.digest and listed.name == "pets"


def test_a_table_decides_and_the_folder_does_not(tmp_path):
    write(tmp_path, flat(4))
    rows = [[name, "odd" if int(name[4:7]) % 2 else "even", "train"] for name in flat(4)[:8]]
    rows += [["emu/000.png", "odd", "test"], ["emu/001.png", "even", "valid"]]
    path = table(tmp_path / "pets.csv", rows)
    data = load(path)
    assert data.classes == ("even", "odd") and data.val.names == ("emu/001.png",)
    assert dict(zip(data.train.names, data.train.labels, strict=True))["cat/003.png"] == 1
    rows[0][1] = "odd"
    assert load(table(path, rows)).digest != data.digest  # the table counts, not only pictures


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    write(tmp_path, names := ["größe, b/1.png", "größe, b/2.png", "c/1.png"])
    text = "path,label,split\r\n" + "".join(
        f'"{name}","{name[0]}, ""x""",{part}\r\n'
        for name, part in zip(names, ("train", "test", "train"), strict=True)
    )
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load(tmp_path / "a.csv").classes == ('c, "x"', 'g, "x"')


WRONG = [
    ("", "row 1: the columns have to be path,label or path,label,split, not ''"),
    ("cat/000.png,cat\n", "row 1: the columns have to be"),
    ("path;label\n", "not 'path;label'"),
    ("path,label\ncat/000.png\n", "row 2: 1 cells, not 2 (path,label)"),
    ("path,label\ncat/000.png,a\n\ndog/000.png,b,c\n", "row 4: 3 cells, not 2"),
    ("path,label\ncat/900.png,cat\n", "row 2: 'cat/900.png': No such file"),
    ("path,label\ncat,cat\n", "row 2: 'cat': no image by its suffix"),
    ("path,label\n,cat\n", "row 2: '': the path has to lie below"),
    ("path,label\ncat/000.png, \n", "row 2: 'cat/000.png': the label is empty"),
    ("path,label\ncat/000.png,a\n./cat//000.png,b\n", "row 3: './cat//000.png': cat/000.png is in"),
    ("path,label\n../out.png,a\n", "row 2: '../out.png': the path has to lie below"),
    ("path,label\ncat/../../out.png,a\n", "the path has to lie below"),
    ("path,label\n{root}/cat/000.png,a\n", "the path has to lie below"),
    ("path,label\nlinked.png,a\n", "row 2: 'linked.png': a link leads out"),
    ("path,label\nbeyond/out.png,a\n", "row 2: 'beyond/out.png': a link leads out"),
    ("path,label\ndir.png,a\n", "row 2: 'dir.png': not a file"),
    ("path,label\nloop.png,a\n", "row 2: 'loop.png': Too many levels"),
    ("path,label\ncat/\0.png,a\n", "row"),
    ("path,label\ncat/000.png,a\u2028b\n", "row 2: 'cat/000.png': unprintable"),
    (
        "path,label,split\ncat/000.png,a,trian\n",
        "the split is 'trian', none of train, training",
    ),
    ("path,label,split\ncat/000.png,a,\n", "the split is ''"),
    ("path,label,split\ncat/000.png,a,test\n", "no train/<class>/ images found"),
    ("path,label\ncat/000.png,a\ncat/001.png,a\n", "only one class (a)"),
    ('path,label\n"cat/000.png,a\n', "after row 1: no CSV"),
    ("path,label\ncat/000.png,\udcff\n", "no CSV in UTF-8"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_table_that_can_not_be_used_is_refused_with_its_row(tmp_path, text, said):
    root = write(tmp_path / "pets", flat(3))
    write(tmp_path, ["out.png"])
    (root / "linked.png").symlink_to(tmp_path / "out.png")
    (root / "beyond").symlink_to(tmp_path)
    (root / "loop.png").symlink_to("loop.png")
    (root / "dir.png").mkdir()
    path = root / "pets.csv"
    path.write_bytes(text.format(root=root).encode(errors="surrogateescape"))
    assert said in refused(path) and str(path) in refused(path)


def test_a_link_that_stays_inside_is_followed(tmp_path):
    root = write(tmp_path / "pets", flat(3))
    (root / "again.png").symlink_to("cat/000.png")
    rows = [[name, name[:3], "train"] for name in flat(3)] + [["again.png", "cat", "test"]]
    data = load(table(root / "pets.csv", rows))
    first = data.train.images()[data.train.names.index("cat/000.png")]
    assert np.array_equal(data.test.images()[0], first)
