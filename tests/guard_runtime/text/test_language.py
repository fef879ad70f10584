import pytest

from guard_runtime.text.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("今天天气怎么样", "zh"),
        ("How is the weather?", "en"),
        ("帮我用 Python 写一个排序函数", "zh"),
        ("What does the character 好 mean in this sentence?", "en"),
        ("", "en"),
        ("12345", "en"),
        ("，。！", "en"),
        ("臺灣", "zh"),
        ("こんにちは", "en"),
        ("x" * 10_000 + "好", "en"),
    ],
)
def test_the_language_is_the_one_that_says_most(text: str, language: str) -> None:
    assert language_of(text) == language
