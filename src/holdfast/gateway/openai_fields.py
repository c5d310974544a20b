"""What becomes of a body's fields that are not served: the list by which they are refused, or accepted and left alone.

Nothing of a body is ever sent on: an engine gets token ids, and how to choose among them. A field that is on neither list is
unknown here and is dropped; one that would change the answer, and can't, had better be on the first.
"""

REFUSED = {
    "audio": "audio is not offered: this model writes text; leave it out.",
    "chat_template": "chat_template is not offered: the model's own is used; leave it out.",
    "chat_template_kwargs": 'chat_template_kwargs is not offered; send thinking={"type": "enabled"} or reasoning_effort.',
    "function_call": "function_call is the old name of tool_choice; send that.",
    "functions": 'functions is the old name of tools; send tools=[{"type": "function", "function": ...}].',
    "guided_choice": "guided_choice is not offered; send response_format with a json_schema that has an enum.",
    "guided_grammar": "guided_grammar is not offered; send response_format with a json_schema.",
    "guided_json": "guided_json is not offered; send response_format with a json_schema.",
    "guided_regex": "guided_regex is not offered; send response_format with a json_schema that has a pattern.",
    "modalities": 'modalities can only be ["text"] here; leave it out.',
    "repetition_penalty": "repetition_penalty can only be 1 here; send frequency_penalty or presence_penalty.",
    "structured_outputs": "structured_outputs is not offered; send response_format with a json_schema.",
    "web_search_options": "web_search_options is not offered: nothing is fetched from here; leave it out.",
}
REFUSED_COMPLETION = {name: REFUSED[name] for name in REFUSED if name.startswith(("guided", "repet", "struct"))} | {
    "response_format": "response_format is not offered for raw prompts; ask at /v1/chat/completions.",
    "tools": "tools are not offered for raw prompts; ask at /v1/chat/completions.",
}
IGNORED = (
    "metadata",
    "prediction",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
)
