"""The page counts what the records hold, and says so when there are none."""

from tests.faults import page


def kill(signal: str, code: int, at: str) -> dict:
    return {"signal": signal, "seconds": 1.5, "process": "new", "at": at, "code": code}


def test_trials_are_counted_by_verb_and_in_all() -> None:
    fine = {"kills": [kill("SIGKILL", -9, "journal/0.json")], "wrong": [], "differs": []}
    late = {"kills": [kill("SIGINT", 0, "summary.json")], "wrong": [], "differs": []}
    twice = {
        "kills": [kill("SIGTERM", 42, ""), kill("SIGINT", 130, "a")],
        "wrong": [],
        "differs": ["model/model.safetensors"],
    }
    record = {"seed": 7, "verbs": {"scan": {"trials": [fine, late]}, "train": {"trials": [twice]}}}
    made = page.crashes(record)
    assert "`python -m tests.crash --seed=7`" in made
    assert "| scan | 2 | 1 | 0 | 1 | 1 | 2 | 0 |" in made
    assert "| train | 1 | 0 | 1 | 1 | 0 | 1 | 1 |" in made
    assert "| all | 3 | 1 | 1 | 2 | 1 | 3 | 1 |" in made
    assert page.crashes(None) == ""


def test_runs_of_the_fuzzer_are_added_up() -> None:
    one = {"inputs": {"tar": 1_200, "npy": 5}, "cpu_seconds": 90.0, "findings": ["npy, seed 1: x"]}
    other = {"inputs": {"tar": 300}, "cpu_seconds": 90.0, "findings": ["npy, seed 1: x"]}
    made = page.fuzzing([one, other])
    assert "| tar | 1,500 |" in made
    assert "1,505 inputs in 3 CPU minutes, 1 findings:\n\n- npy, seed 1: x\n" in made
    assert page.fuzzing(None) == ""
