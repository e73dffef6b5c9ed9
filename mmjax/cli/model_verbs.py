"""The verbs that train a model and measure it, for the table of verbs."""

from mmjax.cli.flags import (
    BATCH,
    COLUMNS,
    FORMAT,
    JOINED,
    OUT,
    OVERWRITE,
    SPLIT,
    TOKENIZER,
    WEIGHTS,
    WORKERS,
    Flag,
    Verb,
)

MODEL_VERBS: dict[str, Verb] = {
    "train": Verb(
        "Train a CLIP model, from scratch or from given weights.",
        "mmjax.cli.laboratory:train",
        config="mmjax.train.config:TrainConfig",
        flags=(
            OUT,
            Flag("data", "the captioned set to learn from", "data.location", value="INPUT"),
            FORMAT._replace(key="data.input_format"),
            SPLIT._replace(key="data.split"),
            COLUMNS._replace(key="data.columns"),
            TOKENIZER._replace(key="model.tokenizer"),
            Flag("weights", "fine-tune these; as in scan", "model.weights", value="KIND:FOLDER"),
            Flag("steps", "length of the run", "steps"),
            Flag(
                "defence",
                "none, cleanclip, roclip, safeclip, abl or adversarial",
                "defence.name",
                value="NAME",
            ),
            Flag("seed", "of everything that is drawn", "seed"),
            OVERWRITE,
            *JOINED,
        ),
        example=(
            "mmjax train --config=train/flickr8k_small --data=DATA/flickr8k "
            "--tokenizer=DATA/bpe_simple_vocab_16e6.txt.gz --out=runs/flickr8k_small"
        ),
    ),
    "evaluate": Verb(
        "Measure a model: zero-shot accuracy, linear probe, retrieval, attack success.",
        "mmjax.cli.evaluation:evaluate",
        config="mmjax.evaluate.config:EvaluateConfig",
        inputs="SET",
        inputs_doc="labelled images, a folder a class; for retrieval and mmPoison captioned ones",
        inputs_count=1,
        inputs_key="inputs",
        flags=(
            OUT,
            Flag("task", "zeroshot, probe, retrieval or attack", "task", value="TASK"),
            WEIGHTS._replace(doc="the model; KIND as in scan, or demo"),
            TOKENIZER,
            Flag("classes", "class names, one a line, or imagenet1k", "classes", value="FILE"),
            Flag(
                "templates", "prompts with {}, one a line, or imagenet1k", "templates", value="FILE"
            ),
            Flag("train", "probe: the labelled set to fit on", "train", value="SET"),
            Flag("attack", "attack: POISONED_DATASET.json", "attack", value="FILE"),
            FORMAT,
            SPLIT,
            COLUMNS,
            BATCH._replace(key="batch_size"),
            WORKERS._replace(key="workers"),
            OVERWRITE,
        ),
        example=(
            "mmjax evaluate imagenet/val --weights=orbax:run --classes=names.txt --out=e1\n"
            "mmjax evaluate photos --weights=orbax:run --task=attack --attack=poisoned --out=e2"
        ),
    ),
}
