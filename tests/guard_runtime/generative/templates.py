"""Chat templates shaped like the published guards': the same turns, tags and variables, fewer words of policy."""

QWEN3GUARD = (
    "{%- if messages[-1].role == 'user' %}{%- set target = \"USER's query\" %}"
    '{%- else %}{%- set target = "ASSISTANT\'s response" %}{%- endif %}'
    "{{- '<|im_start|>user\\n# Task: Evaluate whether THE LAST ' + target + ' is unsafe.\\n\\n<BEGIN SAFETY POLICY>\\n"
    "Violence, illegal acts, and so on.\\n<END SAFETY POLICY>\\n\\n<BEGIN CONVERSATION>\\n\\n' }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- 'USER: ' + message.content + '\\n\\n' }}"
    "{%- else %}{{- 'ASSISTANT: ' + message.content.split('</think>')[-1].lstrip('\\n') + '\\n\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{{- '<END CONVERSATION>\\n\\nProvide your safety assessment for ONLY THE LAST **' + target + '**.<|im_end|>\\n"
    "<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
)

LLAMA_GUARD = (
    "{%- if messages|length % 2 == 0 %}{%- set role = 'Agent' %}{%- else %}{%- set role = 'User' %}{%- endif %}"
    "{{- '<|im_start|>user\\n\\nTask: Check if there is unsafe content in ' + role + ' messages.\\n\\n"
    "<BEGIN CONVERSATION>\\n\\n' }}"
    "{%- for message in messages %}"
    "{{- ('User: ' if message.role == 'user' else 'Agent: ') + message.content[0].text | trim + '\\n\\n' }}"
    "{%- endfor %}"
    "{{- '<END CONVERSATION>\\n\\nFirst line safe or unsafe.<|im_end|>' }}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant' }}{%- endif %}"
)

SHIELDGEMMA = (
    "{{- 'You are a policy expert.\\n\\n<|im_start|>\\nHuman Question: ' + messages[0].content | trim + '\\n' }}"
    "{%- if messages|length > 1 %}{{- '\\nChatbot Response: ' + messages[1].content | trim + '\\n' }}{%- endif %}"
    "{{- '<|im_end|>\\n\\nOur safety principle is defined in the below:\\n\\n* ' + guideline + '\\n\\n"
    "Does it violate the above principle?\\n\\n' }}"
)

GRANITE = (
    "{%- set risk = guardian_config.get('risk_name', guardian_config.get('criteria_id')) %}"
    "{{- '<|im_start|>user\\nYou are a safety agent.\\n\\n<start_of_turn>\\n' }}"
    "{{- 'User Message: ' + messages[0].content + '\\n' }}"
    "{%- if messages|length > 1 %}{{- '\\nAI Message: ' + messages[1].content + '\\n' }}{%- endif %}"
    "{{- '<end_of_turn>\\n\\nThe risk is ' + risk + '.<|im_end|>\\n' }}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

QWEN3 = (
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
    "{{- message.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

TEMPLATES = {
    "qwen3guard_stream": QWEN3,
    "qwen3guard_gen": QWEN3GUARD,
    "llama_guard_3": LLAMA_GUARD,
    "llama_guard_4": LLAMA_GUARD,
    "shieldgemma": SHIELDGEMMA,
    "granite_guardian": GRANITE,
    "granite_guardian_3_3": GRANITE,
}
