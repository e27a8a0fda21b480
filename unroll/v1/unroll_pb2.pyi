from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_HANDED_OVER: _ClassVar[FinishReason]
    FINISH_REASON_UNFINISHED: _ClassVar[FinishReason]

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_BOOL: _ClassVar[DataType]
    DATA_TYPE_INT8: _ClassVar[DataType]
    DATA_TYPE_INT16: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_UINT16: _ClassVar[DataType]
    DATA_TYPE_UINT32: _ClassVar[DataType]
    DATA_TYPE_UINT64: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_CLASSIFY: _ClassVar[Task]
    TASK_GENERATE: _ClassVar[Task]
    TASK_SEQ2SEQ: _ClassVar[Task]
    TASK_TAG: _ClassVar[Task]
    TASK_FILL: _ClassVar[Task]
    TASK_VECTOR_TO_SEQUENCE: _ClassVar[Task]
    TASK_FORECAST: _ClassVar[Task]
    TASK_STEP: _ClassVar[Task]

class Batching(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCHING_UNSPECIFIED: _ClassVar[Batching]
    BATCHING_EXACT: _ClassVar[Batching]
    BATCHING_INEXACT: _ClassVar[Batching]
    BATCHING_NONE: _ClassVar[Batching]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_HANDED_OVER: FinishReason
FINISH_REASON_UNFINISHED: FinishReason
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_BOOL: DataType
DATA_TYPE_INT8: DataType
DATA_TYPE_INT16: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_UINT16: DataType
DATA_TYPE_UINT32: DataType
DATA_TYPE_UINT64: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT64: DataType
TASK_UNSPECIFIED: Task
TASK_CLASSIFY: Task
TASK_GENERATE: Task
TASK_SEQ2SEQ: Task
TASK_TAG: Task
TASK_FILL: Task
TASK_VECTOR_TO_SEQUENCE: Task
TASK_FORECAST: Task
TASK_STEP: Task
BATCHING_UNSPECIFIED: Batching
BATCHING_EXACT: Batching
BATCHING_INEXACT: Batching
BATCHING_NONE: Batching

class CreateStateRequest(_message.Message):
    __slots__ = ("name", "model", "model_version", "prompt", "source", "resume_token", "state", "ttl_seconds", "replace", "allow_inexact")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INEXACT_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    model_version: str
    prompt: str
    source: str
    resume_token: bytes
    state: str
    ttl_seconds: float
    replace: bool
    allow_inexact: bool
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., prompt: _Optional[str] = ..., source: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., state: _Optional[str] = ..., ttl_seconds: _Optional[float] = ..., replace: bool = ..., allow_inexact: bool = ...) -> None: ...

class CreateStateResponse(_message.Message):
    __slots__ = ("state", "unknown_symbols")
    STATE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    state: NamedState
    unknown_symbols: int
    def __init__(self, state: _Optional[_Union[NamedState, _Mapping]] = ..., unknown_symbols: _Optional[int] = ...) -> None: ...

class ListStatesRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListStatesResponse(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[NamedState]
    def __init__(self, states: _Optional[_Iterable[_Union[NamedState, _Mapping]]] = ...) -> None: ...

class DeleteStateRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteStateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NamedState(_message.Message):
    __slots__ = ("name", "model", "digest", "precision", "fingerprint", "method", "input_tokens", "bytes", "created", "expires", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    digest: str
    precision: str
    fingerprint: str
    method: str
    input_tokens: int
    bytes: int
    created: float
    expires: float
    reason: str
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., digest: _Optional[str] = ..., precision: _Optional[str] = ..., fingerprint: _Optional[str] = ..., method: _Optional[str] = ..., input_tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., created: _Optional[float] = ..., expires: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "model_version", "texts", "frames")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    frames: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., frames: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classifications",)
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    classifications: _containers.RepeatedCompositeFieldContainer[Classification]
    def __init__(self, classifications: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("labels", "input_tokens", "unknown_symbols")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[LabelProbability]
    input_tokens: int
    unknown_symbols: int
    def __init__(self, labels: _Optional[_Iterable[_Union[LabelProbability, _Mapping]]] = ..., input_tokens: _Optional[int] = ..., unknown_symbols: _Optional[int] = ...) -> None: ...

class LabelProbability(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class TagRequest(_message.Message):
    __slots__ = ("model", "model_version", "items", "top_labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOP_LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    items: _containers.RepeatedCompositeFieldContainer[TagItem]
    top_labels: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TagItem, _Mapping]]] = ..., top_labels: _Optional[int] = ...) -> None: ...

class TagItem(_message.Message):
    __slots__ = ("text", "words")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., words: _Optional[_Iterable[str]] = ...) -> None: ...

class TagResponse(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedCompositeFieldContainer[TaggedText]
    def __init__(self, texts: _Optional[_Iterable[_Union[TaggedText, _Mapping]]] = ...) -> None: ...

class TaggedText(_message.Message):
    __slots__ = ("tokens", "unknown_symbols")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TaggedToken]
    unknown_symbols: int
    def __init__(self, tokens: _Optional[_Iterable[_Union[TaggedToken, _Mapping]]] = ..., unknown_symbols: _Optional[int] = ...) -> None: ...

class TaggedToken(_message.Message):
    __slots__ = ("text", "label", "probability", "position", "top", "state")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    text: str
    label: str
    probability: float
    position: int
    top: _containers.RepeatedCompositeFieldContainer[LabelProbability]
    state: bytes
    def __init__(self, text: _Optional[str] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., position: _Optional[int] = ..., top: _Optional[_Iterable[_Union[LabelProbability, _Mapping]]] = ..., state: _Optional[bytes] = ...) -> None: ...

class StreamTagRequest(_message.Message):
    __slots__ = ("start", "text", "words")
    START_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    start: StreamTagStart
    text: str
    words: Words
    def __init__(self, start: _Optional[_Union[StreamTagStart, _Mapping]] = ..., text: _Optional[str] = ..., words: _Optional[_Union[Words, _Mapping]] = ...) -> None: ...

class StreamTagStart(_message.Message):
    __slots__ = ("model", "model_version", "top_labels", "tokens_per_message", "resume_every", "resume_at_end", "resume_token", "allow_inexact", "watch", "state", "set_state")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_LABELS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESUME_EVERY_FIELD_NUMBER: _ClassVar[int]
    RESUME_AT_END_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INEXACT_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    top_labels: int
    tokens_per_message: int
    resume_every: int
    resume_at_end: bool
    resume_token: bytes
    allow_inexact: bool
    watch: Watch
    state: str
    set_state: _containers.RepeatedCompositeFieldContainer[StateChange]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., top_labels: _Optional[int] = ..., tokens_per_message: _Optional[int] = ..., resume_every: _Optional[int] = ..., resume_at_end: bool = ..., resume_token: _Optional[bytes] = ..., allow_inexact: bool = ..., watch: _Optional[_Union[Watch, _Mapping]] = ..., state: _Optional[str] = ..., set_state: _Optional[_Iterable[_Union[StateChange, _Mapping]]] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("words",)
    WORDS_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, words: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamTagResponse(_message.Message):
    __slots__ = ("tokens", "resume_points", "usage", "handed_over", "requests_read")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    RESUME_POINTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_READ_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TaggedToken]
    resume_points: _containers.RepeatedCompositeFieldContainer[ResumePoint]
    usage: Usage
    handed_over: bool
    requests_read: int
    def __init__(self, tokens: _Optional[_Iterable[_Union[TaggedToken, _Mapping]]] = ..., resume_points: _Optional[_Iterable[_Union[ResumePoint, _Mapping]]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., handed_over: bool = ..., requests_read: _Optional[int] = ...) -> None: ...

class FillRequest(_message.Message):
    __slots__ = ("model", "model_version", "texts", "top_words")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOP_WORDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    top_words: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., top_words: _Optional[int] = ...) -> None: ...

class FillResponse(_message.Message):
    __slots__ = ("blanks",)
    BLANKS_FIELD_NUMBER: _ClassVar[int]
    blanks: _containers.RepeatedCompositeFieldContainer[FilledBlank]
    def __init__(self, blanks: _Optional[_Iterable[_Union[FilledBlank, _Mapping]]] = ...) -> None: ...

class FilledBlank(_message.Message):
    __slots__ = ("words", "input_tokens", "unknown_symbols")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedCompositeFieldContainer[WordProbability]
    input_tokens: int
    unknown_symbols: int
    def __init__(self, words: _Optional[_Iterable[_Union[WordProbability, _Mapping]]] = ..., input_tokens: _Optional[int] = ..., unknown_symbols: _Optional[int] = ...) -> None: ...

class WordProbability(_message.Message):
    __slots__ = ("word", "probability")
    WORD_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    word: str
    probability: float
    def __init__(self, word: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model", "model_version", "prompt", "source", "vector", "resume_token", "max_tokens", "sampling", "stop", "log_probabilities", "top_log_probabilities", "min_tokens", "samples", "beam", "echo", "tokens_per_message", "resume_every", "resume_at_end", "allow_inexact", "watch", "set_state", "state", "preset", "no_cache", "constraint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOP_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESUME_EVERY_FIELD_NUMBER: _ClassVar[int]
    RESUME_AT_END_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INEXACT_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    prompt: str
    source: str
    vector: Vector
    resume_token: bytes
    max_tokens: int
    sampling: Sampling
    stop: _containers.RepeatedScalarFieldContainer[str]
    log_probabilities: bool
    top_log_probabilities: int
    min_tokens: int
    samples: int
    beam: Beam
    echo: bool
    tokens_per_message: int
    resume_every: int
    resume_at_end: bool
    allow_inexact: bool
    watch: Watch
    set_state: _containers.RepeatedCompositeFieldContainer[StateChange]
    state: str
    preset: str
    no_cache: bool
    constraint: Constraint
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., prompt: _Optional[str] = ..., source: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., resume_token: _Optional[bytes] = ..., max_tokens: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., stop: _Optional[_Iterable[str]] = ..., log_probabilities: bool = ..., top_log_probabilities: _Optional[int] = ..., min_tokens: _Optional[int] = ..., samples: _Optional[int] = ..., beam: _Optional[_Union[Beam, _Mapping]] = ..., echo: bool = ..., tokens_per_message: _Optional[int] = ..., resume_every: _Optional[int] = ..., resume_at_end: bool = ..., allow_inexact: bool = ..., watch: _Optional[_Union[Watch, _Mapping]] = ..., set_state: _Optional[_Iterable[_Union[StateChange, _Mapping]]] = ..., state: _Optional[str] = ..., preset: _Optional[str] = ..., no_cache: bool = ..., constraint: _Optional[_Union[Constraint, _Mapping]] = ...) -> None: ...

class Constraint(_message.Message):
    __slots__ = ("choices", "regex", "json_schema")
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    choices: Choices
    regex: str
    json_schema: str
    def __init__(self, choices: _Optional[_Union[Choices, _Mapping]] = ..., regex: _Optional[str] = ..., json_schema: _Optional[str] = ...) -> None: ...

class Choices(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Watch(_message.Message):
    __slots__ = ("tensors", "units")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedScalarFieldContainer[str]
    units: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tensors: _Optional[_Iterable[str]] = ..., units: _Optional[_Iterable[int]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("tensor", "units", "values")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    tensor: str
    units: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, tensor: _Optional[str] = ..., units: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Beam(_message.Message):
    __slots__ = ("width", "best", "length_penalty", "early_stop")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOP_FIELD_NUMBER: _ClassVar[int]
    width: int
    best: int
    length_penalty: float
    early_stop: bool
    def __init__(self, width: _Optional[int] = ..., best: _Optional[int] = ..., length_penalty: _Optional[float] = ..., early_stop: bool = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "allowed_tokens", "banned_tokens", "typical_p")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BANNED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_P_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: _containers.ScalarMap[int, float]
    allowed_tokens: _containers.RepeatedScalarFieldContainer[int]
    banned_tokens: _containers.RepeatedScalarFieldContainer[int]
    typical_p: float
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., allowed_tokens: _Optional[_Iterable[int]] = ..., banned_tokens: _Optional[_Iterable[int]] = ..., typical_p: _Optional[float] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("tokens", "seed", "finish_reason", "usage", "ends", "resume_points", "echo")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_POINTS_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    seed: int
    finish_reason: FinishReason
    usage: Usage
    ends: _containers.RepeatedCompositeFieldContainer[SampleEnd]
    resume_points: _containers.RepeatedCompositeFieldContainer[ResumePoint]
    echo: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., seed: _Optional[int] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., ends: _Optional[_Iterable[_Union[SampleEnd, _Mapping]]] = ..., resume_points: _Optional[_Iterable[_Union[ResumePoint, _Mapping]]] = ..., echo: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class SampleEnd(_message.Message):
    __slots__ = ("sample", "finish_reason", "output_tokens", "log_probability", "score")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    sample: int
    finish_reason: FinishReason
    output_tokens: int
    log_probability: float
    score: float
    def __init__(self, sample: _Optional[int] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., output_tokens: _Optional[int] = ..., log_probability: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class ResumePoint(_message.Message):
    __slots__ = ("sample", "token", "next_position", "changed")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_POSITION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    sample: int
    token: bytes
    next_position: int
    changed: str
    def __init__(self, sample: _Optional[int] = ..., token: _Optional[bytes] = ..., next_position: _Optional[int] = ..., changed: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "position", "log_probability", "sample", "top", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    position: int
    log_probability: float
    sample: int
    top: _containers.RepeatedCompositeFieldContainer[TopToken]
    state: bytes
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., position: _Optional[int] = ..., log_probability: _Optional[float] = ..., sample: _Optional[int] = ..., top: _Optional[_Iterable[_Union[TopToken, _Mapping]]] = ..., state: _Optional[bytes] = ...) -> None: ...

class TopToken(_message.Message):
    __slots__ = ("id", "text", "log_probability")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    log_probability: float
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "unknown_symbols", "queue_seconds", "time_to_first_token_seconds", "cached_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float
    cached_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., unknown_symbols: _Optional[int] = ..., queue_seconds: _Optional[float] = ..., time_to_first_token_seconds: _Optional[float] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("model", "model_version", "items")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    items: _containers.RepeatedCompositeFieldContainer[ScoreItem]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ScoreItem, _Mapping]]] = ...) -> None: ...

class ScoreItem(_message.Message):
    __slots__ = ("text", "source", "vector", "choices", "top_next_tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    TOP_NEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    source: str
    vector: Vector
    choices: _containers.RepeatedScalarFieldContainer[str]
    top_next_tokens: int
    def __init__(self, text: _Optional[str] = ..., source: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., choices: _Optional[_Iterable[str]] = ..., top_next_tokens: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    def __init__(self, scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("tokens", "log_probability", "unknown_symbols", "choices", "next_tokens")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    log_probability: float
    unknown_symbols: int
    choices: _containers.RepeatedCompositeFieldContainer[ScoredChoice]
    next_tokens: _containers.RepeatedCompositeFieldContainer[TopToken]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., log_probability: _Optional[float] = ..., unknown_symbols: _Optional[int] = ..., choices: _Optional[_Iterable[_Union[ScoredChoice, _Mapping]]] = ..., next_tokens: _Optional[_Iterable[_Union[TopToken, _Mapping]]] = ...) -> None: ...

class ScoredChoice(_message.Message):
    __slots__ = ("tokens", "log_probability", "log_probability_per_token", "probability")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    log_probability: float
    log_probability_per_token: float
    probability: float
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., log_probability: _Optional[float] = ..., log_probability_per_token: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "model_version", "texts", "tensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    tensors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., tensors: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings",)
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    def __init__(self, embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values", "input_tokens", "unknown_symbols")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    input_tokens: int
    unknown_symbols: int
    def __init__(self, values: _Optional[_Iterable[float]] = ..., input_tokens: _Optional[int] = ..., unknown_symbols: _Optional[int] = ...) -> None: ...

class ForecastRequest(_message.Message):
    __slots__ = ("model", "model_version", "series", "horizon", "samples", "quantiles", "seed", "frequency", "resume_token", "allow_inexact", "resume_every")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INEXACT_FIELD_NUMBER: _ClassVar[int]
    RESUME_EVERY_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    series: _containers.RepeatedCompositeFieldContainer[Series]
    horizon: int
    samples: int
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    seed: int
    frequency: str
    resume_token: bytes
    allow_inexact: bool
    resume_every: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., horizon: _Optional[int] = ..., samples: _Optional[int] = ..., quantiles: _Optional[_Iterable[float]] = ..., seed: _Optional[int] = ..., frequency: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., allow_inexact: bool = ..., resume_every: _Optional[int] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("values", "start", "covariates")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    COVARIATES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    start: str
    covariates: _containers.RepeatedCompositeFieldContainer[Covariate]
    def __init__(self, values: _Optional[_Iterable[float]] = ..., start: _Optional[str] = ..., covariates: _Optional[_Iterable[_Union[Covariate, _Mapping]]] = ...) -> None: ...

class Covariate(_message.Message):
    __slots__ = ("name", "past", "future")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    FUTURE_FIELD_NUMBER: _ClassVar[int]
    name: str
    past: _containers.RepeatedScalarFieldContainer[float]
    future: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., past: _Optional[_Iterable[float]] = ..., future: _Optional[_Iterable[float]] = ...) -> None: ...

class ForecastResponse(_message.Message):
    __slots__ = ("steps", "seed", "usage", "resume_token")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ForecastStep]
    seed: int
    usage: Usage
    resume_token: bytes
    def __init__(self, steps: _Optional[_Iterable[_Union[ForecastStep, _Mapping]]] = ..., seed: _Optional[int] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., resume_token: _Optional[bytes] = ...) -> None: ...

class ForecastStep(_message.Message):
    __slots__ = ("series", "position", "time", "mean", "quantiles", "samples")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    series: int
    position: int
    time: str
    mean: float
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    samples: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, series: _Optional[int] = ..., position: _Optional[int] = ..., time: _Optional[str] = ..., mean: _Optional[float] = ..., quantiles: _Optional[_Iterable[float]] = ..., samples: _Optional[_Iterable[float]] = ...) -> None: ...

class StreamStepRequest(_message.Message):
    __slots__ = ("start", "frame")
    START_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    start: StreamStepStart
    frame: StepFrame
    def __init__(self, start: _Optional[_Union[StreamStepStart, _Mapping]] = ..., frame: _Optional[_Union[StepFrame, _Mapping]] = ...) -> None: ...

class StreamStepStart(_message.Message):
    __slots__ = ("model", "model_version", "shared", "outputs", "deadline_seconds", "skip_late", "resume_every", "resume_at_end", "resume_token", "allow_inexact", "typed", "watch", "state", "set_state")
    class SharedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_LATE_FIELD_NUMBER: _ClassVar[int]
    RESUME_EVERY_FIELD_NUMBER: _ClassVar[int]
    RESUME_AT_END_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INEXACT_FIELD_NUMBER: _ClassVar[int]
    TYPED_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    shared: _containers.ScalarMap[str, float]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    deadline_seconds: float
    skip_late: bool
    resume_every: int
    resume_at_end: bool
    resume_token: bytes
    allow_inexact: bool
    typed: bool
    watch: Watch
    state: str
    set_state: _containers.RepeatedCompositeFieldContainer[StateChange]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., shared: _Optional[_Mapping[str, float]] = ..., outputs: _Optional[_Iterable[str]] = ..., deadline_seconds: _Optional[float] = ..., skip_late: bool = ..., resume_every: _Optional[int] = ..., resume_at_end: bool = ..., resume_token: _Optional[bytes] = ..., allow_inexact: bool = ..., typed: bool = ..., watch: _Optional[_Union[Watch, _Mapping]] = ..., state: _Optional[str] = ..., set_state: _Optional[_Iterable[_Union[StateChange, _Mapping]]] = ...) -> None: ...

class StepFrame(_message.Message):
    __slots__ = ("inputs", "reset", "deadline_seconds")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    reset: bool
    deadline_seconds: float
    def __init__(self, inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., reset: bool = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "data_type", "shape", "raw", "floats", "doubles", "integers", "unsigned_integers", "booleans")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    FLOATS_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_INTEGERS_FIELD_NUMBER: _ClassVar[int]
    BOOLEANS_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    raw: bytes
    floats: _containers.RepeatedScalarFieldContainer[float]
    doubles: _containers.RepeatedScalarFieldContainer[float]
    integers: _containers.RepeatedScalarFieldContainer[int]
    unsigned_integers: _containers.RepeatedScalarFieldContainer[int]
    booleans: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., raw: _Optional[bytes] = ..., floats: _Optional[_Iterable[float]] = ..., doubles: _Optional[_Iterable[float]] = ..., integers: _Optional[_Iterable[int]] = ..., unsigned_integers: _Optional[_Iterable[int]] = ..., booleans: _Optional[_Iterable[bool]] = ...) -> None: ...

class StreamStepResponse(_message.Message):
    __slots__ = ("results", "resume_points", "usage", "handed_over")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RESUME_POINTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StepResult]
    resume_points: _containers.RepeatedCompositeFieldContainer[ResumePoint]
    usage: StepUsage
    handed_over: bool
    def __init__(self, results: _Optional[_Iterable[_Union[StepResult, _Mapping]]] = ..., resume_points: _Optional[_Iterable[_Union[ResumePoint, _Mapping]]] = ..., usage: _Optional[_Union[StepUsage, _Mapping]] = ..., handed_over: bool = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("position", "steps", "outputs", "late", "skipped", "state")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    position: int
    steps: int
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    late: bool
    skipped: bool
    state: bytes
    def __init__(self, position: _Optional[int] = ..., steps: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., late: bool = ..., skipped: bool = ..., state: _Optional[bytes] = ...) -> None: ...

class StepUsage(_message.Message):
    __slots__ = ("frames", "steps", "late_frames", "skipped_frames", "queue_seconds", "time_to_first_answer_seconds")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LATE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_ANSWER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    frames: int
    steps: int
    late_frames: int
    skipped_frames: int
    queue_seconds: float
    time_to_first_answer_seconds: float
    def __init__(self, frames: _Optional[int] = ..., steps: _Optional[int] = ..., late_frames: _Optional[int] = ..., skipped_frames: _Optional[int] = ..., queue_seconds: _Optional[float] = ..., time_to_first_answer_seconds: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "refused_models")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    refused_models: _containers.RepeatedCompositeFieldContainer[RefusedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., refused_models: _Optional[_Iterable[_Union[RefusedModel, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version", "with_vocabulary")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WITH_VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    with_vocabulary: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., with_vocabulary: bool = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "task", "description", "labels", "limits", "default_sampling", "figures", "data", "digest", "provider", "precision", "precisions", "batch_invariant", "fingerprint", "vocabulary", "vector_fields", "streams_tags", "forecaster", "stepper", "state", "presets", "embeds", "frames", "attended", "batching", "batching_reason", "cpu_extensions")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class PresetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Sampling
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Sampling, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_INVARIANT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELDS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_TAGS_FIELD_NUMBER: _ClassVar[int]
    FORECASTER_FIELD_NUMBER: _ClassVar[int]
    STEPPER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRESETS_FIELD_NUMBER: _ClassVar[int]
    EMBEDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ATTENDED_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    BATCHING_REASON_FIELD_NUMBER: _ClassVar[int]
    CPU_EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    task: Task
    description: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    limits: _containers.ScalarMap[str, int]
    default_sampling: Sampling
    figures: _containers.RepeatedCompositeFieldContainer[Figure]
    data: _containers.RepeatedCompositeFieldContainer[DataSource]
    digest: str
    provider: str
    precision: str
    precisions: _containers.RepeatedScalarFieldContainer[str]
    batch_invariant: bool
    fingerprint: str
    vocabulary: _containers.RepeatedScalarFieldContainer[str]
    vector_fields: _containers.RepeatedScalarFieldContainer[str]
    streams_tags: bool
    forecaster: Forecaster
    stepper: Stepper
    state: _containers.RepeatedCompositeFieldContainer[StateTensor]
    presets: _containers.MessageMap[str, Sampling]
    embeds: bool
    frames: Frames
    attended: int
    batching: Batching
    batching_reason: str
    cpu_extensions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., task: _Optional[_Union[Task, str]] = ..., description: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., limits: _Optional[_Mapping[str, int]] = ..., default_sampling: _Optional[_Union[Sampling, _Mapping]] = ..., figures: _Optional[_Iterable[_Union[Figure, _Mapping]]] = ..., data: _Optional[_Iterable[_Union[DataSource, _Mapping]]] = ..., digest: _Optional[str] = ..., provider: _Optional[str] = ..., precision: _Optional[str] = ..., precisions: _Optional[_Iterable[str]] = ..., batch_invariant: bool = ..., fingerprint: _Optional[str] = ..., vocabulary: _Optional[_Iterable[str]] = ..., vector_fields: _Optional[_Iterable[str]] = ..., streams_tags: bool = ..., forecaster: _Optional[_Union[Forecaster, _Mapping]] = ..., stepper: _Optional[_Union[Stepper, _Mapping]] = ..., state: _Optional[_Iterable[_Union[StateTensor, _Mapping]]] = ..., presets: _Optional[_Mapping[str, Sampling]] = ..., embeds: bool = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., attended: _Optional[int] = ..., batching: _Optional[_Union[Batching, str]] = ..., batching_reason: _Optional[str] = ..., cpu_extensions: _Optional[_Iterable[str]] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("channels", "frame_seconds")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FRAME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedScalarFieldContainer[str]
    frame_seconds: float
    def __init__(self, channels: _Optional[_Iterable[str]] = ..., frame_seconds: _Optional[float] = ...) -> None: ...

class StateTensor(_message.Message):
    __slots__ = ("name", "units")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    units: int
    def __init__(self, name: _Optional[str] = ..., units: _Optional[int] = ...) -> None: ...

class Stepper(_message.Message):
    __slots__ = ("inputs", "outputs", "shared", "batching", "reason", "frame_seconds", "attributes", "message_steps")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FRAME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_STEPS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    shared: _containers.RepeatedCompositeFieldContainer[SharedInput]
    batching: Batching
    reason: str
    frame_seconds: float
    attributes: _containers.ScalarMap[str, str]
    message_steps: int
    def __init__(self, inputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ..., shared: _Optional[_Iterable[_Union[SharedInput, _Mapping]]] = ..., batching: _Optional[_Union[Batching, str]] = ..., reason: _Optional[str] = ..., frame_seconds: _Optional[float] = ..., attributes: _Optional[_Mapping[str, str]] = ..., message_steps: _Optional[int] = ...) -> None: ...

class TensorInfo(_message.Message):
    __slots__ = ("name", "data_type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class SharedInput(_message.Message):
    __slots__ = ("name", "choices")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    name: str
    choices: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., choices: _Optional[_Iterable[float]] = ...) -> None: ...

class Forecaster(_message.Message):
    __slots__ = ("frequency", "distribution", "covariates", "calendar", "least_context", "context", "horizon")
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    COVARIATES_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_FIELD_NUMBER: _ClassVar[int]
    LEAST_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    frequency: str
    distribution: str
    covariates: _containers.RepeatedScalarFieldContainer[str]
    calendar: bool
    least_context: int
    context: int
    horizon: int
    def __init__(self, frequency: _Optional[str] = ..., distribution: _Optional[str] = ..., covariates: _Optional[_Iterable[str]] = ..., calendar: bool = ..., least_context: _Optional[int] = ..., context: _Optional[int] = ..., horizon: _Optional[int] = ...) -> None: ...

class Figure(_message.Message):
    __slots__ = ("name", "value", "unit", "split", "examples", "floors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    FLOORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    split: str
    examples: int
    floors: _containers.RepeatedCompositeFieldContainer[Floor]
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., split: _Optional[str] = ..., examples: _Optional[int] = ..., floors: _Optional[_Iterable[_Union[Floor, _Mapping]]] = ...) -> None: ...

class Floor(_message.Message):
    __slots__ = ("by", "value")
    BY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    by: str
    value: float
    def __init__(self, by: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class DataSource(_message.Message):
    __slots__ = ("package", "version", "licence")
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    package: str
    version: str
    licence: str
    def __init__(self, package: _Optional[str] = ..., version: _Optional[str] = ..., licence: _Optional[str] = ...) -> None: ...

class RefusedModel(_message.Message):
    __slots__ = ("name", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
