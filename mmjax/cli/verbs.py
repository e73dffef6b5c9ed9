"""The table of verbs: what each takes and which function runs it."""

from typing import NamedTuple


class Flag(NamedTuple):
    """A flag of a verb.

    `key` is the configuration key that it sets, empty if it sets none; `value` stands for its
    value in the help.
    """

    name: str
    doc: str
    key: str = ""
    kind: type = str
    default: object = None
    repeated: bool = False
    value: str = "N"


class Verb(NamedTuple):
    """One verb of the command line; modules are named, not imported.

    `base` names a function from the parsed flags to the values that the configuration starts from.
    """

    summary: str
    run: str
    config: str = ""
    default_config: str = ""
    base: str = ""
    inputs: str = ""
    inputs_doc: str = "shards, tables or folders"
    inputs_count: str | int = "*"
    inputs_key: str = ""
    flags: tuple[Flag, ...] = ()
    example: str = ""


OUT = Flag("out", "the folder to write; the same command on it resumes", value="FOLDER")
OVERWRITE = Flag("overwrite", "empty the folder first, if it is such a run", "", bool, False)
WEIGHTS = Flag(
    "weights",
    "a clean CLIP; KIND is hf-dir, open_clip-dir, mmjax-dir or orbax; or demo",
    "weights",
    value="KIND:FOLDER",
)
TOKENIZER = Flag(
    "tokenizer", "the model's tokenizer, if it is not beside the weights", "tokenizer", value="PATH"
)
FORMAT = Flag(
    "input_format", "kind of source, when looking does not tell", "input_format", value="NAME"
)
SPLIT = Flag("split", "which split, for sources that have splits", "split", value="NAME")
WORKERS = Flag("workers", "threads that read and decode", "encode.workers")
BATCH = Flag("batch_size", "images a step, over all devices", "encode.batch_size")
TRUTH = Flag("truth", "a poison_labels.parquet to compare the verdicts with", value="FILE")
FAIL_ON = Flag("fail_on", "exit 1 when N (or 1) poisoned pairs are found", value="poisoned[:N]")
DROP = Flag("drop", "mismatched: they leave the clean set too", "drop", value="poisoned|mismatched")
JSON = Flag("json", "print the summary as JSON on stdout", "", bool, False)

VERBS: dict[str, Verb] = {
    "demo": Verb(
        "Make captioned scenes, poison 1 % of them, scan them, compare with the truth.",
        "mmjax.cli.laboratory:demo",
        config="mmjax.evaluate.demo:DemoConfig",
        flags=(
            OUT._replace(default="mmjax-demo"),
            Flag("seed", "of the scenes and of the poisoning", "seed"),
            Flag("rate", "share of poisoned pairs; 0 = none", "rate"),
            Flag("train", "train the small CLIP here instead of loading it", "train", bool),
        ),
        example="mmjax demo\nmmjax demo --seed=1 --out=demo1\nmmjax demo --rate=0 --out=clean",
    ),
    "scan": Verb(
        "Find poisoned pairs in a set of images and captions.",
        "mmjax.cli.scanning:scan",
        config="mmjax.scan.config:ScanConfig",
        inputs="INPUT",
        inputs_key="inputs",
        flags=(
            OUT,
            WEIGHTS,
            Flag("mapping", "made by fit-mapping", "mapping", value="FOLDER"),
            Flag(
                "reference",
                "clean captioned pairs to fit the mapping on; may be given several times",
                "reference",
                repeated=True,
                value="INPUT",
            ),
            TOKENIZER,
            FORMAT,
            SPLIT,
            BATCH,
            WORKERS,
            Flag(
                "part",
                "encode every N-th shard only, from the I-th (0 to N-1): one command a host; "
                "without it, what is left is encoded and all is decided",
                value="I/N",
            ),
            Flag("fdr", "expected share of benign pairs among those flagged", "stages.fdr"),
            Flag("write_clean", "write shards of the kept pairs", "write_clean", bool),
            DROP._replace(key="stages.drop"),
            Flag(
                "accept_partial", "a shard that ends too early is no fault", "accept_partial", bool
            ),
            TRUTH,
            FAIL_ON,
            OVERWRITE,
            JSON,
        ),
        example=(
            "mmjax scan 'cc3m/{00000..00331}.tar' --weights=hf-dir:clip --reference=coco --out=r1\n"
            "mmjax scan ... --out=r1 --part=3/16   # on host 3 of 16; then once without --part\n"
            "mmjax scan EMBEDDINGS --reference=CLEAN_EMBEDDINGS --out=r2   # no weights needed"
        ),
    ),
    "rescore": Verb(
        "Decide again with other thresholds, from the embeddings of an earlier scan.",
        "mmjax.cli.scanning:rescore",
        config="mmjax.scan.config:StageConfig",
        base="mmjax.cli.scanning:stages_of",
        inputs="RUN",
        inputs_doc="the folder of an earlier scan; what is not said here stays as it was there",
        inputs_count=1,
        flags=(
            OUT._replace(doc="the folder to write [RUN/rescored-DIGEST]"),
            Flag("gamma", "share of the lowest Gaussian that is taken as benign", "gamma"),
            Flag("fdr", "expected share of benign pairs among those flagged, at most", "fdr"),
            DROP,
            Flag("gamma_z", "paper mode: pairs with a higher z are poisoned", "gamma_z"),
            Flag("seeds", "number of seeds (q)", "seeds"),
            TRUTH,
            FAIL_ON,
            JSON,
        ),
        example="mmjax rescore run1 --fdr=0.01",
    ),
    "fit-mapping": Verb(
        "Fit the mapping network F on clean captioned pairs.",
        "mmjax.cli.scanning:fit_mapping",
        config="mmjax.scan.config:FitConfig",
        inputs="CLEAN",
        inputs_key="inputs",
        flags=(
            OUT,
            WEIGHTS,
            TOKENIZER,
            FORMAT,
            SPLIT,
            Flag("kind", "lm, regression or ridge", "fit.kind", value="KIND"),
            BATCH,
            WORKERS,
            OVERWRITE,
        ),
        example="mmjax fit-mapping coco --weights=hf-dir:clip --out=mapping",
    ),
    "attack": Verb(
        "Poison a copy of a set, with the ground truth beside it, to test detectors.",
        "mmjax.cli.laboratory:attack",
        config="mmjax.attacks.config:AttackConfig",
        default_config="attack/badnets",
        inputs="INPUT",
        inputs_key="inputs",
        flags=(
            OUT,
            FORMAT,
            SPLIT,
            Flag("rate", "share of pairs to poison", "rate"),
            Flag("target", "what the poisoned captions name", "target", value="WORD"),
            WEIGHTS._replace(doc="surrogate of trojan, badclip, label_consistent; as in scan"),
            TOKENIZER._replace(doc="the surrogate's tokenizer, if not beside the weights"),
            Flag("seed", "of the choice of victims, triggers and captions", "seed"),
            Flag("i_understand", "needed to poison more than 10 %", "i_understand", bool),
        ),
        example="mmjax attack flickr8k --split=dev,test --config=attack/badnets --out=poisoned",
    ),
    "train": Verb(
        "Train a CLIP model, from scratch or from given weights.",
        "mmjax.cli.laboratory:train",
        config="mmjax.train.config:TrainConfig",
        default_config="train/flickr8k_small",
        flags=(
            OUT,
            Flag("data", "the captioned set to learn from", "data.location", value="INPUT"),
            FORMAT._replace(key="data.input_format"),
            SPLIT._replace(key="data.split"),
            TOKENIZER._replace(key="model.tokenizer"),
            Flag("weights", "fine-tune these; as in scan", "model.weights", value="KIND:FOLDER"),
            Flag("steps", "length of the run", "steps"),
            Flag("defence", "none, cleanclip or roclip", "defence.name", value="NAME"),
            Flag("seed", "of everything that is drawn", "seed"),
            Flag(
                "coordinator",
                "HOST:PORT of process 0 of several, or auto (Slurm, TPU pods, GKE)",
                default="",
                value="HOST:PORT",
            ),
            Flag("processes", "how many processes there are [JAX_NUM_PROCESSES]", "", int, 0),
            Flag("process", "the number of this one, from 0 [JAX_PROCESS_ID]", "", int, -1),
        ),
        example=(
            "mmjax train --config=train/flickr8k_small --data=DATA/flickr8k "
            "--tokenizer=DATA/bpe_simple_vocab_16e6.txt.gz --out=runs/flickr8k_small"
        ),
    ),
    "detectors": Verb(
        "Measure the scan and other detectors on the same pairs, against the truth.",
        "mmjax.cli.laboratory:detectors",
        inputs="RUN",
        inputs_doc="the folder of a finished scan",
        inputs_count=1,
        flags=(
            OUT._replace(doc="the folder of the JSON and the page [RUN/detectors]"),
            TRUTH._replace(doc="the poison_labels.parquet of the scanned set"),
            Flag("losses", "recorded training losses: shard, ordinal, loss", value="FILE"),
            Flag("only", "names of detectors, e.g. cfbd_robust,dao", value="NAME,..."),
            Flag("seed", "of the detectors that draw", "", int, 0),
        ),
        example="mmjax detectors run1 --truth=poisoned/poison_labels.parquet",
    ),
    "reproduce": Verb(
        "Run an experiment of docs/results and write its JSON and its page.",
        "mmjax.cli.laboratory:reproduce",
        config="mmjax.evaluate.experiment:ReproduceConfig",
        inputs="EXPERIMENT",
        inputs_doc="its name; an unknown one lists all",
        inputs_count=1,
        flags=(
            OUT,
            Flag("scale", "of the cfbd experiments: small or paper", "scale"),
            Flag("data", "folder of the real data set", "data", value="FOLDER"),
            WEIGHTS,
            TOKENIZER,
            Flag("seeds", "of the attack and of the scan, e.g. 0,1,2", "seeds", value="N,N,..."),
            Flag("kinds", "mapping networks, e.g. lm,regression,ridge", "kinds"),
            Flag("results", "where the JSON and the page go", "results", value="FOLDER"),
        ),
        example=(
            "mmjax reproduce flickr8k-scan --data=DATA/flickr8k "
            "--weights=mmjax-dir:runs/flickr8k_small/model --out=runs/flickr8k-scan"
        ),
    ),
    "verify": Verb(
        "Check a finished run against its journal: files, counts, manifests, inputs.",
        "mmjax.cli.scanning:verify",
        inputs="RUN",
        inputs_doc="the folder of a finished run",
        inputs_count=1,
        example="mmjax verify run1   # exit code 0: as it was written; 2: not",
    ),
    "plan": Verb(
        "Compile a step for machines that are not here: does it fit, what binds, how long.",
        "mmjax.cli.measuring:plan",
        config="mmjax.measure.plan_config:PlanConfig",
        base="mmjax.cli.measuring:run_of",
        flags=(
            Flag("of", "plan the run of this configuration (scan/..., train/...)", value="NAME"),
            Flag("step", "encode, text, train or pgd", "step"),
            Flag("preset", "shape of the model, as RN50 or ViT-L-14", "preset", value="NAME"),
            Flag("topology", "of a TPU, as v5e:2x4", "topology", value="CHIP:SHAPE"),
            Flag("batch_size", "images of a step, over all devices", "batch_size"),
            Flag("pairs", "of the data set", "pairs"),
            Flag("sweep", "double the batch until it does not fit", "sweep", bool),
            Flag("platform", "tpu (needs libtpu, no TPU) or cpu", "platform"),
            Flag("devices", "how many, for platform=cpu", "devices"),
            Flag("anew", "compile again what the cache knows", "", bool, False),
            OUT._replace(doc="a file for the figures as JSON", value="FILE"),
        ),
        example=(
            "mmjax plan --of=scan/cc3m --preset=RN50 --topology=v5e:2x4\n"
            "mmjax plan --of=train/flickr8k_rn50 --batch_size=32768 --topology=v5e:16x16"
        ),
    ),
    "pack": Verb(
        "Turn any source into WebDataset shards.",
        "mmjax.cli.laboratory:pack",
        inputs="INPUT",
        flags=(
            OUT,
            FORMAT._replace(key="", default="auto"),
            SPLIT._replace(key="", default=""),
            Flag("shard_size", "pairs a shard", "", int, 10_000),
        ),
        example="mmjax pack captions.csv --out=shards",
    ),
    "convert": Verb(
        "Turn a pickled torch checkpoint into safetensors (needs the parity extra).",
        "mmjax.cli.laboratory:convert",
        inputs="CHECKPOINT",
        inputs_doc="a .pt or .bin file",
        inputs_count=1,
        flags=(OUT,),
        example="mmjax convert ViT-B-32.pt --out=clip && mmjax doctor --weights=open_clip-dir:clip",
    ),
    "doctor": Verb(
        "Say what was found: versions, devices, memory, disk, weights, tokenizer.",
        "mmjax.cli.doctor:doctor",
        flags=(
            WEIGHTS._replace(key="", default=""),
            TOKENIZER._replace(key="", default=""),
            OUT._replace(doc="folder whose disk is looked at", default="."),
        ),
        example="mmjax doctor --weights=hf-dir:clip",
    ),
}
