import numpy as np

from mmjax.scan.report_captions import CaptionCluster
from mmjax.scan.report_groups import MOST_GROUPS, MOST_WRONG, Findings, Row, Wording, look_again
from tests.scan.report_runs import SHARDS, make_run


def cluster(exemplar: str) -> CaptionCluster:
    return CaptionCluster(exemplar, 9, 0.1, 1)


def look(folder, *, clusters=(), loose_group=None, **changes) -> Findings:
    run = make_run(folder / "run", **changes)
    return look_again(run.folder / "verdicts", clusters, loose_group=loose_group)


def test_a_group_has_its_pairs_captions_and_wordings(tmp_path):
    captions = {0: "A banana, on plate 1!"}
    found = look(tmp_path, captions=captions)
    (group,) = found.groups
    assert (group.number, group.pairs, group.captions, group.linked) == (0, 18, 4, True)
    assert group.wordings == (
        Wording("a banana on plate 1", 7),
        Wording("a banana on plate 2", 6),
        Wording("a banana on plate 0", 5),
    )


def test_its_rows_are_spread_over_the_shard_that_has_most_of_it(tmp_path):
    (group,) = look(tmp_path).groups
    assert [row.place for row in group.rows] == [("00000", i) for i in (0, 2, 4, 6, 8, 11)]
    assert group.rows[1] == Row("00000", 2, "000000002", "a banana on plate 2")


def test_rows_of_the_next_shard_fill_up(tmp_path):
    changes = {("00000", i): {"group": None, "verdict": "benign"} for i in range(4, 12)}
    (group,) = look(tmp_path, changes=changes).groups
    assert group.pairs == 10
    assert [row.shard for row in group.rows] == ["00001"] * 6
    changes |= {("00001", i): {"group": None, "verdict": "benign"} for i in range(5, 9)}
    (group,) = look(tmp_path / "second", changes=changes).groups
    assert [row.place for row in group.rows] == [
        *(("00000", i) for i in range(4)),
        ("00001", 3),
        ("00001", 4),
    ]


def test_the_largest_groups_are_shown_and_the_others_counted(tmp_path):
    changes = {("00000", i): {"group": i} for i in range(12)}
    changes |= {("00001", i): {"group": 12 if i > 4 else 13} for i in range(3, 9)}
    found = look(tmp_path, changes=changes, loose_group=13)
    assert found.group_count == 14
    assert [group.number for group in found.groups] == [12, 13, *range(10)]
    assert [group.pairs for group in found.groups[:3]] == [4, 2, 1]
    assert [group.linked for group in found.groups] == [True, False] + [True] * 10
    assert len(found.groups) == MOST_GROUPS


def test_unflagged_rows_with_the_captions_asked_for(tmp_path):
    captions = {0: "stock photo", **dict.fromkeys(range(20, 24), "stock photo")}
    captions[59] = "stock photo"  # skipped
    clusters = (cluster("stock photo"), cluster("nowhere"))
    found = look(tmp_path, captions=captions, clusters=clusters)
    assert [entry.cluster for entry in found.repeated] == [*clusters]
    stock, nowhere = (entry.rows for entry in found.repeated)
    assert [row.ordinal for row in stock] == [20, 21, 22, 23]
    assert nowhere == ()


def test_captions_of_any_length_are_found_again(tmp_path):
    captions = dict.fromkeys((20, 21), "c" * 100_000)
    (entry,) = look(tmp_path, captions=captions, clusters=[cluster(captions[20])]).repeated
    assert [row.ordinal for row in entry.rows] == [20, 21]


def test_the_surest_mismatched_pairs_come_first(tmp_path):
    generator = np.random.default_rng(0)
    chances = {(shard, i): float(generator.uniform()) for shard in SHARDS for i in range(20, 40)}
    chances["00001", 21] = chances["00000", 25] = 1.0
    changes = {
        place: {"verdict": "mismatched", "mismatch_probability": chance}
        for place, chance in chances.items()
    }
    changes["00000", 50] = {"mismatch_probability": 1.0}  # but benign
    for shard in SHARDS:  # captions of their own
        for i in range(20, 40):
            changes[shard, i]["caption"] = f"{shard} {i}"
    found = look(tmp_path, changes=changes)
    expected = sorted(chances, key=lambda place: (-chances[place], place))[:MOST_WRONG]
    assert [pair.row.place for pair in found.wrong] == expected
    assert expected[:2] == [("00000", 25), ("00001", 21)]
    np.testing.assert_allclose(
        [pair.probability for pair in found.wrong], [chances[p] for p in expected], rtol=1e-6
    )


def test_one_mismatched_pair_stands_for_those_of_its_caption(tmp_path):
    shifted = {"verdict": "mismatched", "caption": "stock photo"}
    changes = {
        ("00000", 20): {**shifted, "mismatch_probability": 0.8},
        ("00000", 30): {**shifted, "mismatch_probability": 0.9},
        ("00001", 20): {**shifted, "mismatch_probability": 0.7},
        ("00001", 30): {**shifted, "mismatch_probability": 0.6, "caption": "another"},
    }
    found = look(tmp_path, changes=changes)
    assert [pair.row.place for pair in found.wrong] == [("00000", 30), ("00001", 30)]


def test_a_clean_set_has_nothing_to_show(tmp_path):
    assert look(tmp_path, poisoned=False) == Findings()


def test_rows_are_changed_everywhere(tmp_path):
    changes = {("00000", 40): {"verdict": "mismatched", "mismatch_probability": 0.9}}
    captions = dict.fromkeys((20, 21), "stock photo")
    found = look(tmp_path, changes=changes, captions=captions, clusters=[cluster("stock photo")])
    assert len(found.rows) == 6 + 2 + 1
    changed = found.map_rows(lambda row: row._replace(jpeg=b"x"))
    assert [row.jpeg for row in changed.rows] == [b"x"] * 9
    assert changed.map_rows(lambda row: row._replace(jpeg=None)) == found
