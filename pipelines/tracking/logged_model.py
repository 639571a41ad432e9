"""The ONNX file as a model of MLflow's: byte for byte, with its signature, tied to its final metrics."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from generalist.errors import BadInput
from generalist.untrusted import file_sha256

with warnings.catch_warnings():
    # MLflow's own agent types have a field of type Any, and it warns of them when it reads them.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow.pyfunc  # noqa: F401  what mlflow.onnx would import when it is first used
    from mlflow.onnx import save_model

_FILE = "model.onnx"  # MLflow's name for it


def log_model(
    client: MlflowClient,
    path: Path,
    *,
    run_id: str,
    name: str,
    step: int,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> LoggedModel:
    """Give an ONNX file to MLflow as a model that a run has made at a step, its epoch.

    It does what `mlflow.onnx.log_model` does, through a client: that function works on the process's one tracking
    address and active run, which threads share. The file itself is copied, not serialised anew.

    Raises:
        BadInput: MLflow holds other bytes afterwards.
    """
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(
        experiment, name=name, source_run_id=run_id, model_type="classifier", params=dict(params), tags=dict(tags)
    )
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=step)])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        _write(path, folder, Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id))
        client.log_model_artifacts(model.model_id, str(folder))
        _check_same(client, model, path, Path(temporary))
    return client.finalize_logged_model(model.model_id, "READY")


def model_of(client: MlflowClient, run_id: str) -> LoggedModel:
    """Return the model that a complete run has made; if its logging was tried twice, the last."""
    outputs = client.get_run(run_id).outputs
    made = [client.get_logged_model(output.model_id) for output in (outputs.model_outputs if outputs else [])]
    return max((model for model in made if model.status == "READY"), key=lambda model: model.creation_timestamp)


def stored_file(client: MlflowClient, location: str, folder: Path) -> Path:
    """Return the ONNX file of a model at an artifact location: where it lies, or fetched into `folder`."""
    return Path(
        download_artifacts(
            artifact_uri=f"{location.rstrip('/')}/{_FILE}", dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        BadInput: it can't be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}): make it with `dvc repro`") from None


def _write(path: Path, folder: Path, description: Model) -> None:
    """Write a folder of MLflow's form around the file."""
    proto = onnx.load(path)
    save_model(
        proto,
        folder,
        mlflow_model=description,
        signature=ModelSignature(inputs=_schema(proto.graph.input), outputs=_schema(proto.graph.output)),
        # Given, because MLflow would start a process to find out.
        pip_requirements=[f"{package.__name__}=={package.__version__}" for package in (onnx, onnxruntime, np)],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    shutil.copyfile(path, folder / _FILE)


def _schema(values: list[onnx.ValueInfoProto]) -> Schema:
    return Schema([_spec(value) for value in values])


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Return name, type and shape of a tensor; sizes that are free are -1."""
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    return TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape, value.name)


def _check_same(client: MlflowClient, model: LoggedModel, path: Path, folder: Path) -> None:
    held = sha256_of(stored_file(client, model.artifact_location, folder))
    if held != sha256_of(path):
        raise BadInput(f"MLflow holds other bytes than {path} after the upload: check {model.artifact_location}")
