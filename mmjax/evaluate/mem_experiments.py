"""MEM's experiments by name. Imports no JAX, so that `mmjax reproduce --help` stays fast."""

from mmjax.evaluate.experiment import Experiment, named

_NOTES = (
    "Hit@10 in percent, high where the victim has learned; MedR is the median rank of the answer, "
    "low where it has. Test photos and captions are clean.",
    "Surrogates and victims have different initial weights, and where no victim is named the same "
    "shape. Noise is of 8 grey levels; at small scale all sets have one a photo.",
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
    "mem-table2": Experiment(
        named("mmjax.evaluate.mem:table2"),
        "MEM, Table 2: victims of other shapes",
        (
            *_NOTES,
            "All sets are protected against one surrogate: `vit-tiny-64` at small scale, RN50 at "
            "the paper's, if no other is named. Shapes are those of `models.presets`; `demo` is a "
            "small ResNet.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_table2",
    ),
    "mem-table4": Experiment(
        named("mmjax.evaluate.mem_faces:table4"),
        "MEM, Table 4: faces with invented names",
        (
            "Hit@k in percent, high where a person is recognised; MedR is the median rank of the "
            "answer, low where one is. The gallery of names has one caption a person, that of "
            "photos all new photos: a photo's answer is its person's caption, a caption's any "
            "photo of its person, of which the best-placed one counts; wrong answers that are tied "
            "with it count as half. Chance is exact for these galleries.",
            "Pairs of one person share a name, so that a batch holds wrong negatives, as in the "
            "paper. The paper holds out one photo a person. A victim without weights of its own "
            "is trained from scratch, where the paper fine-tunes.",
            "The numbers are printed as they come out, whatever they say.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_pages:write_table4",
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
    "mem-figure4": Experiment(
        named("mmjax.evaluate.mem_figures:figure4"),
        "MEM, Figure 4: loss and MedR by epoch",
        (
            *_NOTES,
            "An epoch is as many steps as there are batches of pairs; the loss is its mean, MedR "
            "that of the test photos after it.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_plots:write_figure4",
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
    "mem-figure7": Experiment(
        named("mmjax.evaluate.mem_faces:figure7"),
        "MEM, Figure 7: from a face to its protection",
        (
            "The victims are those of Table 4. Names are invented; the captions that are learned "
            "from and the names that victims give to new photos stand below the photos.",
            "The picture and the JSON hold photos of the set: publish them only where you may.",
        ),
        needs=("data",),
        page="mmjax.evaluate.mem_plots:write_figure7",
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
