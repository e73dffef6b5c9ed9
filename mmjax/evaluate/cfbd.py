"""The experiments of CFBD, by the names that `mmjax reproduce` takes. Imports no JAX."""

from mmjax.evaluate.experiment import Experiment, named

_SMALL = (
    "Small scale: 10,000 generated scenes a seed, the bundled demo model, F fitted (ridge) on "
    "3,000 other scenes; 60 poisoned pairs (.6 %). Poisoned captions name the clock, which few "
    "clean ones do, as the banana on the web; mmPoison and label-consistent take victims among the "
    "pairs that name their target, so theirs is common: the bird, shown a guitar by mmPoison. "
    "Optimised triggers take fewer steps than by default (docs/results/attacks.md)."
)

CFBD: dict[str, Experiment] = {
    "cfbd-table4": Experiment(
        named("mmjax.evaluate.cfbd_tables:table4"),
        "CFBD, Table 4: every detector on nine attacks",
        (_SMALL,),
        needs=(),
        page="mmjax.evaluate.cfbd_tables:write_table4",
    ),
}
