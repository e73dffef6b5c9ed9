"""What a JobSet may hold, as far as mmjax's launcher could use it: unknown fields are refused.

Written down from the Go types of JobSet (kubernetes-sigs/jobset:api/jobset/v1alpha2), batch/v1 and
core/v1, and from what their webhooks refuse.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
LABEL: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def fields(*required: str, **known: Schema) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "properties": known,
        "required": list(required),
        "additionalProperties": False,
    }


def every(item: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*values: str) -> Schema:
    """One of some words."""
    return {"enum": list(values)}


METADATA = fields(name=LABEL, namespace=LABEL, labels=TEXTS, annotations=TEXTS)
QUANTITY: Schema = {"type": ["integer", "string"]}
RESOURCES = {"type": "object", "additionalProperties": QUANTITY}
VARIABLE: Schema = {
    **fields(
        "name",
        name={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        value={"type": "string"},
        valueFrom=fields(fieldRef=fields("fieldPath", apiVersion=TEXT, fieldPath=TEXT)),
    ),
    "not": {"required": ["value", "valueFrom"]},
}
CONTAINER = fields(
    "name",
    "image",
    name=LABEL,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    command=every({"type": "string"}),
    args=every({"type": "string"}),
    workingDir=TEXT,
    env=every(VARIABLE),
    ports=every(fields("containerPort", containerPort=COUNT, name=LABEL)),
    resources=fields(limits=RESOURCES, requests=RESOURCES),
    securityContext=fields(privileged=FLAG, runAsUser=COUNT, runAsNonRoot=FLAG),
    volumeMounts=every(
        fields("name", "mountPath", name=LABEL, mountPath=TEXT, subPath=TEXT, readOnly=FLAG)
    ),
)
VOLUME = {
    **fields(
        "name",
        name=LABEL,
        persistentVolumeClaim=fields("claimName", claimName=LABEL, readOnly=FLAG),
        emptyDir=fields(medium={"type": "string"}, sizeLimit=QUANTITY),
        hostPath=fields("path", path=TEXT, type=TEXT),
    ),
    "minProperties": 2,
    "maxProperties": 2,
}
POD = fields(
    "containers",
    "restartPolicy",
    restartPolicy=one_of("Never"),  # podFailurePolicy wants it
    terminationGracePeriodSeconds=COUNT,
    activeDeadlineSeconds=COUNT,
    hostNetwork=FLAG,
    dnsPolicy=one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    nodeSelector=TEXTS,
    serviceAccountName=LABEL,
    priorityClassName=TEXT,
    tolerations=every(
        fields(
            key=TEXT,
            operator=one_of("Exists", "Equal"),
            value=TEXT,
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        )
    ),
    initContainers=every(CONTAINER),
    containers=every(CONTAINER),
    volumes=every(VOLUME),
)
JOB = fields(
    "template",
    parallelism=COUNT,
    completions=COUNT,
    completionMode=one_of("Indexed", "NonIndexed"),
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    ttlSecondsAfterFinished=COUNT,
    podReplacementPolicy=one_of("TerminatingOrFailed", "Failed"),
    podFailurePolicy=fields(
        "rules",
        rules=every(
            fields(
                "action",
                action=one_of("FailJob", "FailIndex", "Ignore", "Count"),
                onExitCodes=fields(
                    "operator",
                    "values",
                    containerName=LABEL,
                    operator=one_of("In", "NotIn"),
                    values=every({"type": "integer", "minimum": 1, "maximum": 255}),
                ),
                onPodConditions=every(fields("type", "status", type=TEXT, status=TEXT)),
            )
        ),
    ),
    template=fields("spec", metadata=METADATA, spec=POD),
)
RESTARTS = tuple(
    f"Restart{what}{how}" for what in ("JobSet", "Job") for how in ("", "AndIgnoreMaxRestarts")
)
JOBSET = fields(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion=one_of("jobset.x-k8s.io/v1alpha2"),
    kind=one_of("JobSet"),
    metadata={**METADATA, "required": ["name"]},
    spec=fields(
        "replicatedJobs",
        suspend=FLAG,
        ttlSecondsAfterFinished=COUNT,
        network=fields(enableDNSHostnames=FLAG, subdomain=LABEL, publishNotReadyAddresses=FLAG),
        successPolicy=fields(
            "operator", operator=one_of("All", "Any"), targetReplicatedJobs=every(LABEL)
        ),
        failurePolicy=fields(
            maxRestarts=COUNT,
            restartStrategy=one_of("Recreate", "BlockingRecreate", "InPlaceRestart"),
            rules=every(
                fields(
                    "action",
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action=one_of("FailJobSet", *RESTARTS),
                    onJobFailureReasons=every(
                        one_of(
                            "BackoffLimitExceeded",
                            "DeadlineExceeded",
                            "FailedIndexes",
                            "MaxFailedIndexesExceeded",
                            "PodFailurePolicy",
                        )
                    ),
                    targetReplicatedJobs=every(LABEL),
                )
            ),
        ),
        replicatedJobs=every(
            fields(
                "name",
                "template",
                name=LABEL,
                groupName=LABEL,
                replicas=COUNT,
                template=fields("spec", metadata=METADATA, spec=JOB),
            )
        ),
    ),
)
