"""`SampleData`, the core module: remembers what was registered."""

registered: list[dict[str, object]] = []


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(  # noqa: PLR0917  Slicer's own
        category: str = "Custom",
        sampleName: str | None = None,
        uris: object = None,
        fileNames: object = None,
        nodeNames: object = None,
        customDownloader: object = None,
        thumbnailFileName: str | None = None,
        loadFileType: object = None,
        loadFiles: object = None,
        loadFileProperties: object = None,
        checksums: object = None,
    ) -> None:
        registered.append({key: value for key, value in locals().items() if value is not None})
