"""What CFBD's Tables 1 and 2 poison at small scale, and how."""

from typing import Any

from mmjax.core.config_file import from_file
from mmjax.evaluate.attack_sheet import SETTINGS

PAIRS, REFERENCES = 3_000, 1_500
"""How many scenes models learn from, and how many F, and CleanCLIP's fine-tuning, learn from."""
TARGET = "bottle"
"""What poisoned captions name: a rare thing that the demo model reads well and, unlike the clock of
the other experiments, sees in no trigger before it has learned it (chosen on seeds 0 and 2)."""
MMPOISON = {"mmpoison_target": "turtle", "mmpoison_donor": "car"}
"""Things that the demo model reads well, as CLIP does mmPoison's dogs and trucks."""
TRIGGERS: dict[str, dict[str, Any]] = {
    "badnets": {"patch_size": 0.375},
    "label_consistent": {"patch_size": 0.6},
    "badclip": {"patch_size": 0.25},
    "trojan": {"patch_size": 0.375},
    "blended": {"alpha": 0.5},
    "wanet": {"strength": 16.0},
    "sig": {"amplitude": 90 / 255},
    "issba": {"image_weight": 0.2},
}
"""Stronger triggers than the papers', whose patches would be five of the scenes' 64 pixels, and
which a small model of 64 pixels does not learn from some tens of pairs; chosen on seeds 0 and 2."""


def changes(name: str) -> dict[str, Any]:
    """What of an attack's configuration is another: its trigger, and how captions end.

    Those of templates end as the scenes' do, without a full stop.
    """
    values = from_file(f"attack/{name}")
    trigger = dict(values["trigger"])
    trigger |= SETTINGS.get(trigger["name"], {}) | TRIGGERS.get(name, {})
    written = values.get("captions", "template") == "template"
    return {"trigger": trigger, **({"full_stop": False} if written else {})}


def attack_values(name: str) -> dict[str, Any]:
    """The whole configuration of an attack, as far as it is no other attack's too."""
    return dict(from_file(f"attack/{name}")) | changes(name)
