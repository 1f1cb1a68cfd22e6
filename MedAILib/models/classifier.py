"""A MONAI bundle that classifies, as a model that runs and that can say which voxels spoke for its answer."""

from dataclasses import replace
from pathlib import Path

import torch

from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import bundle_spec
from MedAILib.errors import InputError, SpecError
from MedAILib.estimate import demand_of
from MedAILib.inference.classify import Classified, ClassifyRecipe, classify
from MedAILib.inference.ladder import or_on_cpu
from MedAILib.inference.memory import memory_told
from MedAILib.models.bundle import weighted_network
from MedAILib.models.inferers import laying
from MedAILib.models.postprocess import activation_plan
from MedAILib.models.provenance import provenance
from MedAILib.models.steps import preprocessing_steps
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import held_bytes
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions, Explain
from MedAILib.results import Classification
from MedAILib.spec import Classes, ModelSpec
from MedAILib.volume import Volume

# Names of channels that are the colours of a picture, or of an image that may be repeated to be one.
_COLOURS = frozenset(("r", "g", "b", "red", "green", "blue", "image", "channel 0", "channel 1", "channel 2"))


class ClassifierModel:
    """A classification model from a MONAI bundle, its network on a device and ready.

    Args:
        folder: the bundle.
        device: where its network runs.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        ModelError: its network can't be built, or the weights are missing, damaged or don't fit.

    Example::

        model = ClassifierModel(Path("breast_ultrasound"), torch.device("cpu"))
        print(model.run(volume, ClassifyOptions(), Progress()).verdict().text)
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._sha256 = tree_sha256(folder)
        plan = read_any_plan(folder)
        self.spec = bundle_spec(plan)
        if self.spec.classes is None:
            raise SpecError(f"The model {self.spec.name} is for {self.spec.task}, not for classification.")
        self._classes = self.spec.classes
        self._recipe = classify_recipe(plan, self.spec, self._classes)
        self._device = device
        self._network = weighted_network(plan).eval().requires_grad_(False).to(device)

    @property
    def weights_bytes(self) -> int:
        """What its network's weights hold on their device."""
        return held_bytes(self._network)

    def run(self, volume: Volume, options: ClassifyOptions, progress: Progress) -> Classification:
        """Classify a volume (C, K, J, I), or its slices or frames.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        if not isinstance(options, ClassifyOptions):
            raise SpecError(f"The model {self.spec.name} classifies images; it makes no segmentation.")
        if options.explain and options.explain.class_name not in (None, *self._classes.names):
            raise InputError(
                f"The model {self.spec.name} knows no class {options.explain.class_name}; it decides between "
                f"{', '.join(self._classes.names)}."
            )
        with memory_told(f"{self.spec.name} ran on {volume.name}"):
            (result, prepared), gave_way = or_on_cpu(
                self._device,
                lambda device: self._run_on(device, volume, options, progress),
                progress,
                demand_of(self.spec, volume, options),
            )
        memory = "; ".join((*prepared, *gave_way)) or "enough"
        return replace(result, provenance=result.provenance | {"memory": memory})

    def _run_on(
        self, device: torch.device, volume: Volume, options: ClassifyOptions, progress: Progress
    ) -> tuple[Classification, tuple[str, ...]]:
        """The answer by the network on a device, and what gave way in preparing for it."""
        self._network.to(device)
        try:
            with torch.inference_mode():
                done = classify(volume, self._network, self._recipe, options, progress)
            result = self._result(volume, options, done, device)
            if options.explain is not None:
                result = self._explained(result, done, options.explain, progress)
            return result, done.gave_way
        finally:
            self._network.to(self._device)

    def _result(
        self, volume: Volume, options: ClassifyOptions, done: Classified, device: torch.device
    ) -> Classification:
        strange = self._classes.out_of_distribution
        more = {"sha256": self._sha256, "temperature": str(self._classes.temperature)}
        return Classification(
            self._classes.names,
            self._classes.kind,
            done.probabilities,
            done.scores,
            self._classes.thresholds,
            done.places,
            volume.geometry,
            self._classes.unsure_below,
            done.strangeness,
            None if strange is None else strange.threshold,
            codes=self._classes.codes,
            provenance=provenance(self.spec, volume, options, device, more),
        )

    def _explained(
        self, result: Classification, done: Classified, asked: Explain, progress: Progress
    ) -> Classification:
        from MedAILib.inference.saliency import explain  # noqa: PLC0415  MONAI's and other methods, for who explains

        name = asked.class_name or result.likeliest
        saliency = explain(
            self._network,
            self._recipe,
            done,
            result.geometry,
            replace(asked, class_name=name),
            progress,
        )
        return replace(result, saliency=saliency)


def classify_recipe(plan: BundlePlan, spec: ModelSpec, classes: Classes) -> ClassifyRecipe:
    if spec.obstacle:
        raise SpecError(spec.obstacle)
    laying(plan.inferer, classes.dimensions)  # refuses what it does not know; a classifier sees its image whole
    if plan.inferer.name != "SimpleInferer":
        raise SpecError(f"The model {spec.name} lays windows over its image, which MedAI does not do for classifiers.")
    outputs = int(next(iter(plan.metadata["network_data_format"]["outputs"].values()))["num_channels"])
    for key, promised in (
        ("in_channels", len(spec.channels)),
        ("n_input_channels", len(spec.channels)),
        ("out_channels", outputs),
        ("num_classes", outputs),
    ):
        built = plan.network.arguments.get(key, promised)
        if built != promised and plan.network.name != "TorchVisionFCModel":
            raise SpecError(
                f"The model {spec.name} contradicts itself: its metadata speaks of {promised}, its network's {key} is "
                f"{built}."
            )
    default = "sigmoid" if classes.kind in ("multilabel", "ordinal") or outputs < len(classes.names) else "softmax"
    return ClassifyRecipe(
        preprocessing_steps(plan.preprocessing, classes.dimensions),
        classes,
        len(spec.channels),
        outputs,
        activation_plan(plan.postprocessing) or default,
        classes.dimensions == 2 and {name.lower() for name in spec.channels} <= _COLOURS,
    )
