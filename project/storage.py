"""Static files under names that carry a hash of their content, so that browsers may keep them for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """WhiteNoise's storage, for ES modules too, and usable before ``collectstatic`` was ever run."""

    support_js_module_import_aggregation = True  # rewrites `import … from "./other.js"` to the hashed name

    def stored_name(self, name: str) -> str:
        # Nothing collected: WhiteNoise serves the files where they are (WHITENOISE_USE_FINDERS), under their names.
        return super().stored_name(name) if self.hashed_files else name
