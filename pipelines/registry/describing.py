"""What MLflow's page of the registered model says: what it is, how accurate the champion is, how to use it."""

from mlflow import MlflowClient

_WHAT = (
    "Image classifiers, trained to be accurate and adversarially robust, as ONNX: input `images` float32 [batch,"
    " channels, height, width] in [0, 1], output `logits` float32 [batch, classes]."
)


def describe(client: MlflowClient, name: str, champion: int | None) -> None:
    """Write the description of a registered model, unless somebody has written one of their own.

    Args:
        client: of MLflow.
        name: of the registered model.
        champion: its version; None where there is none.
    """
    if not (client.get_registered_model(name).description or _WHAT).startswith(_WHAT):
        return
    about = "No version is champion yet."
    if champion is not None:
        told = client.get_model_version(name, str(champion)).description
        about = (
            f"The champion is version {champion}. {told}\n\n"
            "`generalist download --output model.onnx` copies its file, `generalist predict IMAGE` uses it; elsewhere"
            f" `mlflow artifacts download --artifact-uri models:/{name}@champion --dst-path champion`."
        )
    client.update_registered_model(name, f"{_WHAT}\n\n{about}")
