"""What of KubeRay's resources (ray.io/v1, operator 1.6 and newer) and of Kubernetes' pods the files here may use.

The names are those of the custom resource definitions, of which this is the part that is used: a key that is missing
here is either misspelt or has to be looked up there first. `test_kuberay.py` can be given the whole definitions, too.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}


def of(required: str = "", **properties: Schema) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def by_name(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
CONTAINER = of(
    "name image resources",
    name=TEXT,
    image=TEXT,
    ports=many(of("containerPort", name={"type": "string", "maxLength": 15}, containerPort=WHOLE)),
    resources=of("requests limits", requests=by_name(QUANTITY), limits=by_name(QUANTITY)),
    volumeMounts=many(of("name mountPath", name=TEXT, mountPath=TEXT)),
)
VOLUME = of(
    "name",
    name=TEXT,
    persistentVolumeClaim=of("claimName", claimName=TEXT),
    emptyDir=of(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
)
TOLERATION = of(
    key=TEXT,
    operator={"enum": ["Exists", "Equal"]},
    value=TEXT,
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
)
POD = of(
    "spec",
    spec=of(
        "containers",
        containers=many(CONTAINER),
        securityContext=of(fsGroup=WHOLE),
        volumes=many(VOLUME),
        nodeSelector=by_name(TEXT),
        tolerations=many(TOLERATION),
    ),
)
GROUP = {
    "resources": by_name({"type": "string", "pattern": "^[0-9]+$"}),
    "rayStartParams": by_name(TEXT),
    "template": POD,
}
CLUSTER = of(
    "headGroupSpec rayVersion authOptions",
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    authOptions=of("mode secretName", mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headGroupSpec=of("rayStartParams template", **GROUP),
    workerGroupSpecs=many(
        of(
            "groupName rayStartParams template minReplicas maxReplicas",
            groupName=TEXT,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            **GROUP,
        )
    ),
)
JOB = of(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    backoffLimit=WHOLE,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=WHOLE,
    rayClusterSpec=CLUSTER,
)
SERVICE = of("serveConfigV2 rayClusterConfig", serveConfigV2=TEXT, rayClusterConfig=CLUSTER)


def resource(kind: str, spec: Schema) -> Schema:
    return of(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=of("name", name={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,40}$"}),
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": resource("RayCluster", CLUSTER),
    "RayJob": resource("RayJob", JOB),
    "RayService": resource("RayService", SERVICE),
}


def closed(schema: Any) -> Any:
    """A definition's schema under which keys that it does not name are mistakes; Kubernetes itself would drop them."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        done.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        done.pop("type", None)
    return done
