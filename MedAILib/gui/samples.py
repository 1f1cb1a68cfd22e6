"""The image for a first run that the Sample Data module offers."""

from pathlib import Path

import SampleData  # a module of Slicer, there once the application has started

# Slicer's own MRHead: a T1-weighted head, donated for unrestricted use by the person in it.
MRHEAD_SHA256 = "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"


def register_samples(thumbnail: Path) -> None:
    """Offer the image under MedAI's own heading."""
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MedAI",
        sampleName="MedAIHead",
        thumbnailFileName=str(thumbnail),
        uris=f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{MRHEAD_SHA256}",
        fileNames="MedAIHead.nrrd",
        nodeNames="MedAIHead",
        checksums=f"SHA256:{MRHEAD_SHA256}",
    )
