"""The protections that MEM's experiments compare: what each is and what it is made with."""

from typing import Any

from mmjax.evaluate.mem_settings import Settings, model_values

CLEAN = "clean"
PROTECTIONS: dict[str, str] = {
    CLEAN: "clean",
    "em_paper": "EM, a quarter of the budget",
    "em_matched": "EM, MEM's budget",
    "uap_8": "UAP, 8 steps",
    "uap_250": "UAP, 250 steps",
    "mem_3": "MEM-3",
    "mem_5": "MEM-5",
    "mem_plus": "mem-plus",
    "mem_natural": "MEM-3, natural triggers",
    "random_trigger": "random triggers of 3, clean photos",
    "random_trigger_5": "random triggers of 5, clean photos",
    "prefix": "`the the the`, clean photos",
}
"""What `method` knows to make, and what it is."""


def method(name: str, mem: Settings, tokenizer: str) -> dict[str, Any]:
    """What a set of `PROTECTIONS` is made with, as `ProtectConfig` takes it.

    But for budgets and models, and noise by photo where the settings say so, as `configs/protect`.
    """
    scope = "image" if name == "mem_plus" else mem.noise_scope
    shuffles = name in ("mem_3", "mem_5", "mem_natural")
    noise: dict[str, Any] = {"scope": scope, "shuffle": shuffles}
    trigger: dict[str, Any] = {"length": 0}
    surrogate: dict[str, Any] = {
        "model": model_values(mem.surrogate, mem, tokenizer),
        "optimizer": {
            **mem.optimizer,
            "learning_rate": mem.surrogate_learning_rate,
            "warmup": 0.0,
            "schedule": "constant",
        },
        "steps": mem.surrogate_steps,
    }
    views: dict[str, Any] = {"crop": 1.0, "jpeg": 0, "grey": False}
    rounds = mem.rounds
    searched = {"length": 3, "rounds": max(1, rounds // 4), "candidates": 16}
    match name:
        case "clean" | "random_trigger" | "random_trigger_5" | "prefix":
            rounds, noise["steps"] = 0, 0
            if name.startswith("random_trigger"):
                trigger = {"length": 5 if name.endswith("_5") else 3, "scope": "pair"}
            if name == "prefix":
                trigger = {"length": 3, "scope": "universal", "start": "the"}
        case "em_paper":
            rounds, surrogate["steps"] = max(1, rounds // 4), max(1, mem.surrogate_steps // 4)
        case "uap_8" | "uap_250":
            steps = int(name.removeprefix("uap_"))
            noise |= {"goal": "maximise", "steps": steps}
            noise["start"] = "zeros" if steps == 8 else "random"
            surrogate |= {"on": "clean", "steps": rounds * mem.surrogate_steps}
            rounds = 1
        case "mem_3" | "mem_5":
            trigger = {**searched, "vocabulary": "all", "selection": "joint"}
            trigger["length"] = int(name.removeprefix("mem_"))
        case "mem_natural":
            trigger = {**searched, "vocabulary": "natural", "rounds": rounds}
        case "mem_plus":
            trigger = {**searched, "dropout": 0.5}
            views["jpeg"] = 50
    return {
        "rounds": rounds,
        "noise": noise,
        "trigger": trigger,
        "surrogate": surrogate,
        "views": views,
    }
