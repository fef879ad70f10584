"""All families, by the name that config.yaml and `python -m export` know them by."""

from collections.abc import Mapping
from types import MappingProxyType

from guard_runtime.generative.families.family import Family
from guard_runtime.generative.families.granite_guardian import GRANITE_GUARDIAN, GRANITE_GUARDIAN_3_3
from guard_runtime.generative.families.libra import INSTRUCT, LIBRA_GUARD
from guard_runtime.generative.families.llama_guard import LLAMA_GUARD_3, LLAMA_GUARD_4
from guard_runtime.generative.families.qwen3guard import QWEN3GUARD_GEN, QWEN3GUARD_STREAM
from guard_runtime.generative.families.shieldgemma import SHIELDGEMMA
from guard_runtime.generative.families.shieldlm import SHIELDLM

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            LIBRA_GUARD,
            INSTRUCT,
            QWEN3GUARD_GEN,
            QWEN3GUARD_STREAM,
            LLAMA_GUARD_3,
            LLAMA_GUARD_4,
            SHIELDGEMMA,
            SHIELDLM,
            GRANITE_GUARDIAN,
            GRANITE_GUARDIAN_3_3,
        )
    }
)
