"""Static files under names with a hash of their content, so that browsers may cache them for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """WhiteNoise's storage, also for ES modules, and usable before ``collectstatic`` was ever run."""

    support_js_module_import_aggregation = True  # rewrites `import … from "./other.js"` to the hashed name

    def stored_name(self, name: str) -> str:
        # Nothing collected: WhiteNoise serves the source files (WHITENOISE_USE_FINDERS) under their names.
        return super().stored_name(name) if self.hashed_files else name
