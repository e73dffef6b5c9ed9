"""MEM's experiments by name. Imports no JAX, so that `mmjax reproduce --help` stays fast."""

from mmjax.evaluate.experiment import Experiment, named

_NOTES = (
    "Hit@10 in percent, high where the victim has learned; MedR is the median rank of the answer, "
    "low where it has. Test photos and captions are clean.",
    "Surrogates and victims have the same shape and different initial weights. All sets have one "
    "noise a photo, of 8 grey levels.",
    "Victims this small learn little that holds for other photos: compare the clean set with "
    "chance before reading the columns of the test.",
    "The numbers are printed as they come out, whatever they say.",
)

MEM: dict[str, Experiment] = {
    "mem-table1": Experiment(
        named("mmjax.evaluate.mem:table1"),
        "MEM, Table 1: what victims learn from protected pairs",
        _NOTES,
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_sets",
    ),
    "mem-controls": Experiment(
        named("mmjax.evaluate.mem:controls"),
        "MEM: which part of a protection has the effect",
        _NOTES,
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_sets",
    ),
    "mem-robustness": Experiment(
        named("mmjax.evaluate.mem:robustness"),
        "MEM: protections under attackers who know of them",
        (
            *_NOTES,
            "What an attacker does to photos it does to those of the test too. Adversarial "
            "training perturbs the photos of every step; the filter leaves out the half of the "
            "pairs that was learned best in the first epoch.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_robustness",
    ),
    "mem-table3": Experiment(
        named("mmjax.evaluate.mem:table3"),
        "MEM, Table 3: natural triggers",
        (
            *_NOTES,
            "Naturalness: mean log-likelihood, in nats a token, of a trigger and the caption's "
            "first word, by a bigram model of captions that the search has not seen; beside it "
            "that of random words in the trigger's place and of as many of the captions' own "
            "first words.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_table3",
    ),
    "mem-figure5": Experiment(
        named("mmjax.evaluate.mem_figures:figure5"),
        "MEM, Figure 5: what victims look at",
        (
            "Grad-CAM and Integrated Gradients of the cosine of clean test pairs, in inference "
            "mode. The first words are where triggers stood in training. Heat maps are compared "
            "with those of the victim of the same seed that was trained on clean pairs.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_plots:write_figure5",
    ),
    "mem-figure6": Experiment(
        named("mmjax.evaluate.mem_figures:figure6"),
        "MEM, Figure 6: pairs in the plane",
        (
            "t-SNE of photos (triangles) and captions (circles), a colour a photo: clean pairs as "
            "the victim of clean pairs sees them, protected pairs as theirs does.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_plots:write_figure6",
    ),
    "mem-partial": Experiment(
        named("mmjax.evaluate.mem:partial"),
        "MEM: sets of which a part is protected",
        (*_NOTES, "Beside each share what the other photos, which are clean, teach alone."),
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_partial",
    ),
}
"""The experiments of the second paper, and those that it lacks."""
