"""Errors of bundles.

BundleError
├── BundleMissing      a file the bundle needs is not there
├── BundleCorrupt      a file's bytes are not the ones that were written
├── BundleTooLarge     a file, or all together, is larger than what is read
├── SchemaUnknown      the manifest was written for another schema version
├── ManifestInvalid    the manifest can be read but contradicts itself or its graphs
├── WeightsNotFinite   a weight is NaN or infinite
└── VocabularyInvalid  a vocabulary that cannot number symbols

SymbolUnknown is of a text, not of a bundle.
"""


class BundleError(Exception):
    """A bundle cannot be used; the message names the file and says what to do."""


class BundleMissing(BundleError):
    pass


class BundleCorrupt(BundleError):
    pass


class BundleTooLarge(BundleError):
    pass


class SchemaUnknown(BundleError):
    pass


class ManifestInvalid(BundleError):
    pass


class WeightsNotFinite(BundleError):
    pass


class VocabularyInvalid(BundleError):
    pass


class SymbolUnknown(ValueError):
    """A text holds a symbol that its reader has no id for, not even one for the unknown."""
