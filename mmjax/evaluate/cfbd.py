"""The experiments of CFBD, by the names that `mmjax reproduce` takes. Imports no JAX."""

from mmjax.evaluate.experiment import Experiment, named

_SMALL = (
    "Small scale: 10,000 generated scenes a seed, the bundled demo model, F fitted (ridge) on "
    "3,000 other scenes; .6 % are poisoned unless the table says another rate. Poisoned captions "
    "name the clock, which few clean ones do, as the banana on the web; mmPoison and "
    "label-consistent take their victims among the pairs that name the target, so theirs is "
    "common: the bird, which mmPoison shows a guitar. Optimised triggers take fewer steps than by "
    "default, as in attacks.md."
)
_TABLES, _FIGURES = "mmjax.evaluate.cfbd_tables", "mmjax.evaluate.cfbd_figures"
_PAGES = "mmjax.evaluate.cfbd_pages"
_TRAINING = "mmjax.evaluate.cfbd_training"
_TRAINED = (
    "The bundled demo model is fine-tuned on 3,000 generated scenes of 37 classes a seed, 2 % of "
    "them poisoned, in 360 steps of 64, and judged on 6,000 other scenes with one object each; "
    "the same model scans, F is fitted (ridge) on 1,500 more. Poisoned captions name the bottle "
    "here, which a clean model sees in no trigger, label-consistent's the bird, more than half of "
    "whose pairs are poisoned, mmPoison's the turtle, which it shows a car. Triggers are stronger "
    "than the papers' (`trained_settings.TRIGGERS`; psnr tells how strong), so that those of "
    "WaNet and ISSBA are plain to see; optimised ones take few steps. Neither poisoned captions "
    "nor prompts end in a full stop, since no clean caption does: models would bind the poison to "
    "it. All this was chosen on seeds 0 and 2, but for the attacks' third learning rate, which was "
    "added after a look at seed 3; how the scan's settings were chosen, docs/scan.md tells. ABL "
    "isolates 2 %, as many pairs as are poisoned. CleanCLIP fine-tunes the model trained without "
    "defence on the 1,500 clean scenes."
)


def _table(number: int, title: str, *notes: str) -> Experiment:
    return Experiment(
        named(f"{_TABLES}:table{number}"),
        f"CFBD, Table {number}: {title}",
        (*notes, _SMALL),
        needs=(),
        page=f"{_TABLES}:write_table{number}",
    )


def _figure(number: int, title: str, *notes: str) -> Experiment:
    return Experiment(
        named(f"{_FIGURES}:figure{number}"),
        f"CFBD, Figure {number}: {title}",
        (*notes, _SMALL),
        needs=(),
        page=f"{_PAGES}:write_figure{number}",
    )


def _trained(number: int, title: str) -> Experiment:
    return Experiment(
        named(f"{_TRAINING}:tables"),
        f"CFBD, Table {number}: {title}",
        ("Tables 1 and 2 are two views of the same trainings.", _TRAINED),
        needs=(),
        seeds=(3, 4),
        page=f"{_TRAINING}_pages:write_table{number}",
    )


CFBD: dict[str, Experiment] = {
    "cfbd-table1": _trained(1, "zero-shot accuracy with and without defence"),
    "cfbd-table2": _trained(2, "attack success with and without defence"),
    "cfbd-table3": _table(
        3,
        "what is found, by attack and rate",
        "ABL isolates as many pairs as are poisoned (recall@n), a budget that nobody knows.",
    ),
    "cfbd-table4": _table(4, "every detector on nine attacks"),
    "cfbd-table5": _table(
        5,
        "seeds of which a share is benign",
        "400 seeds with 20 % faults are 320 poisoned pairs, so 4 % of these sets are poisoned. "
        "The seeds are given, and have no score themselves. Centred: the mean caption is "
        "subtracted first. z looks at captions alone, and victims and captions are drawn by seed "
        "and pair, so attacks that differ in the trigger only have the same numbers here.",
    ),
    "cfbd-figure2": _figure(
        2,
        "similarity and correlation of clean and poisoned pairs",
        "The correlation with the poisoned captions leaves a pair's own caption out.",
    ),
    "cfbd-figure4": _figure(4, "consistency, its mixture, the benign set D_b"),
    "cfbd-figure5": _figure(5, "precision by recall"),
    "cfbd-figure6": _figure(
        6,
        "K and γ of the coarse stage, q of the fine one",
        "With 60 poisoned pairs a q of 100 is mostly benign; in the paper 3,000 are poisoned.",
    ),
    "cfbd-figure7": _figure(7, "how well Gaussians fit the consistency; z and its threshold"),
    "cfbd-probe": Experiment(
        named("mmjax.evaluate.cfbd_probe:probes"),
        "What a linear fit finds in the embeddings of nine attacks",
        (
            "A probe is told which pairs are poisoned and predicts each of them by one ridge "
            "regression on all others. It is evidence of what these embeddings show, not a bound: "
            "other fits, more poison to learn from, or what is not linear may tell more.",
            _SMALL,
        ),
        needs=(),
        page="mmjax.evaluate.cfbd_probe:write_probes",
    ),
    "cfbd-stress": Experiment(
        named("mmjax.evaluate.cfbd_stress:stress"),
        "Hard cases for the scan",
        (
            "BadNets, .6 %, one target and template captions unless the case says otherwise; "
            "several targets and attackers share the poisoned pairs. Shuffled pairs exchange "
            "captions; a decoy gets, of 1,000 captions, the one that fits its image least; both "
            "count as clean, and `wrong` in the JSON says what became of them. Natural captions "
            "are the set's own that name the target; paraphrased ones are put together so that "
            "hardly two are the same.",
            _SMALL,
        ),
        needs=(),
        page="mmjax.evaluate.cfbd_stress_pages:write_stress",
    ),
    "cfbd-zero": Experiment(
        named("mmjax.evaluate.cfbd_stress:zero"),
        "Sets without poison",
        ("Boilerplate: a caption of the set on random images, word by word or numbered.", _SMALL),
        needs=(),
        seeds=tuple(range(20)),
        page="mmjax.evaluate.cfbd_stress_pages:write_zero",
    ),
    "cfbd-fdr": Experiment(
        named("mmjax.evaluate.cfbd_stress:false_discoveries"),
        "The false-discovery rate asked for, and the realised one",
        (
            "A discovery is a pair flagged as poisoned; one that is merely wrong counts as false. "
            "A set with no discovery has rate 0, one without poison 1 if any pair is flagged. "
            "Goals allow two standard errors of the mean over seeds. Embeddings (with --data): "
            "see flickr8k-embeddings.md; scenes (without):",
            _SMALL,
        ),
        needs=(),
        seeds=tuple(range(20)),
        page="mmjax.evaluate.cfbd_stress_pages:write_fdr",
    ),
}
