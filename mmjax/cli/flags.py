"""What a verb and its flags are, and the flags that several verbs have."""

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
COLUMNS = Flag("columns", "image and caption column of a table", "columns", value="IMAGE,CAPTION")
WORKERS = Flag("workers", "threads that read and decode", "encode.workers")
BATCH = Flag("batch_size", "images a step, over all devices", "encode.batch_size")
TRUTH = Flag("truth", "a poison_labels.parquet to compare the verdicts with", value="FILE")
FAIL_ON = Flag("fail_on", "exit 1 when N (or 1) poisoned pairs are found", value="poisoned[:N]")
DROP = Flag("drop", "mismatched: they leave the clean set too", "drop", value="poisoned|mismatched")
JSON = Flag("json", "print the summary as JSON on stdout", "", bool, False)
JOINED = (
    Flag(
        "coordinator",
        "HOST:PORT of process 0 of several, or auto (Slurm, TPU pods, GKE)",
        default="",
        value="HOST:PORT",
    ),
    Flag("processes", "how many processes there are [JAX_NUM_PROCESSES]", "", int, 0),
    Flag("process", "the number of this one, from 0 [JAX_PROCESS_ID]", "", int, -1),
)
