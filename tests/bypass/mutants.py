"""The defences, each as the line that makes it one, and that line with the defence switched off."""

from dataclasses import dataclass

from tests.support.source_edit import SourceEdit


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` stands once in `function` of `file` and becomes `new` (`SourceEdit`); then each of `tests` fails."""

    off: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    function: str = ""

    @property
    def edit(self) -> SourceEdit:
        return SourceEdit(self.function, self.old, self.new)


PIPELINE, JUDGE, APP = "gateway/pipeline/pipeline.py", "gateway/judging/judge.py", "gateway/api/app.py"
HOLD, CHANNEL = "gateway/streaming/hold_buffer.py", "gateway/streaming/channel.py"
STREAMING = "gateway/streaming/response.py"
CHAT, CHAT_STREAM, FIELDS = (
    "gateway/dialects/choices/chat.py",
    "gateway/dialects/choices/chat_stream.py",
    "gateway/dialects/fields.py",
)
PASSAGE_GUARD, CLASSIFIER, NORMALISE = (
    f"guard_runtime/{n}.py" for n in ("guards/passage_guard", "guards/classifier", "text/normalise")
)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a path with a slash more is no other path",
        APP,
        "app.router.redirect_slashes = False",
        "app.router.redirect_slashes = True",
        ("wire_01_route_that_no_dialect_reads_is_not_served",),
        function="create_app",
    ),
    Mutant(
        "what was decided of the prompt is done",
        PIPELINE,
        "        action = _remedy(prompt.judgement, prompt.conversation)\n",
        "        action = Pass()\n",
        (
            "wire_01_route_that_is_served_is_guarded",
            "wire_02_stream_true_is_guarded_on_the_way_in",
            "threat_01_injection_of_control_tokens_and_verdicts_does_not_help",
        ),
        function="Pipeline._prompt_body",
    ),
    Mutant(
        "text leaves when it has been cleared",
        HOLD,
        "return all(piece.end <= piece.text.cleared for piece in held.pieces)",
        "return True",
        (
            "wire_02_stream_true_is_guarded_on_the_way_out",
            "wire_10_stream_edges_whatever_way_the_text_is_cut_the_word_stays_in",
        ),
        function="HoldBuffer._may_leave",
    ),
    Mutant(
        "what was decided of an answer is done",
        PIPELINE,
        "        return exchange.dialect.refused(exchange.body, answer, choice.position, text), judgement\n",
        "        return answer, judgement\n",
        ("wire_02_stream_true_or_not_every_dialect_is_guarded_on_the_way_out",),
        function="Pipeline._choice",
    ),
    Mutant(
        "a caller who has left ends the stream",
        STREAMING,
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n        scope.cancel()",
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n        await anyio.sleep_forever()",
        ("wire_02_a_caller_who_leaves_in_the_middle_is_recorded_and_the_upstream_closed",),
        function="GuardedStream._until_left",
    ),
    Mutant(
        "a block ends the stream",
        STREAMING,
        "            case Regenerate(decision) | Replace(decision):\n                return self._replaced(decision)\n",
        "            case Regenerate(decision) | Replace(decision):\n"
        "                if decision.action is Action.BLOCK:\n                    return self._clear(judgement, ())\n"
        "                return self._replaced(decision)\n",
        (
            "wire_02_an_upstream_that_fails_in_the_middle_releases_nothing_unread",
            "wire_06_tool_call_arguments_are_read_while_split_over_deltas",
        ),
        function="_Relay._apply",
    ),
    Mutant(
        "an answer without its end is not whole",
        STREAMING,
        "return self._stream.finished or self._buffer.closed",
        "return True",
        ("wire_02_a_stream_without_its_end_is_guarded_and_ends_in_an_error",),
        function="_Relay._complete",
    ),
    Mutant(
        "every choice is judged",
        PIPELINE,
        "for choice in exchange.dialect.read_answer(answer, exchange.body):",
        "for choice in exchange.dialect.read_answer(answer, exchange.body)[1:]:",
        (
            "wire_03_choices_in_any_order_are_each_judged",
            "wire_03_echoed_prompts_and_best_of_are_judged_as_they_come",
        ),
        function="Pipeline._answered",
    ),
    Mutant(
        "every choice that was asked for is open until it was closed",
        "gateway/dialects/choices/choice_stream.py",
        "self._open = set(range(expected))",
        "self._open = {0}",
        ("wire_03_a_block_closes_every_choice_the_first_one_first",),
        function="ChoiceStream.__init__",
    ),
    Mutant(
        "logprobs are read",
        CHAT_STREAM,
        'return "\\n".join(piece for piece in pieces if piece)',
        'return ""',
        ("wire_03_logprobs_tell_nothing_that_the_text_may_not",),
        function="logprobs_text",
    ),
    Mutant(
        "stop words are read",
        CHAT,
        'yield from _stop(body.get("stop"))',
        "yield from ()",
        ("wire_03_prediction_stop_suffix_and_every_prompt_are_read",),
        function="_definitions",
    ),
    Mutant(
        "what is no text is a part without text",
        CHAT,
        '        yield from media_part((*path, part_type), _media(part_type, holder), name=holder.get("filename"))\n',
        "",
        ("wire_04_content_of_every_shape_is_read_or_answered_for",),
        function="_piece",
    ),
    Mutant(
        "media is put into words",
        "gateway/judging/prompt.py",
        "        conversation = await self._readers.read(conversation)\n",
        "",
        ("wire_04_media_is_judged_by_the_words_a_reader_finds_in_it",),
        function="PromptJudge.judge",
    ),
    Mutant(
        "a picture stands alone",
        CHAT,
        'if holder.keys() <= {"url", "detail"} and only_names(holder.get("detail")):',
        "if True:",
        ("wire_04_text_beside_media_does_not_pass_with_it",),
        function="_media",
    ),
    Mutant(
        "plain text begins like no other format",
        "gateway/dialects/media.py",
        " or text.startswith(_OTHERWISE)",
        "",
        ("wire_04_another_format_is_not_read_as_plain_text",),
        function="_plain",
    ),
    Mutant(
        "a field with text that nobody knows is refused",
        FIELDS,
        "for key in unread(value, known):",
        "for key in ():",
        ("wire_04_content_that_nobody_can_read_is_refused_not_skipped",),
        function="refuse_unknown",
    ),
    Mutant(
        "every turn is judged",
        "guard_runtime/conversation.py",
        "turns = self.turns if self.direction is Direction.PROMPT else self.turns[-1:]",
        "turns = self.turns[-1:]",
        ("wire_05_roles_and_turns_of_any_claim_are_read",),
        function="Conversation.judged",
    ),
    Mutant(
        "only the first system turns may be trusted",
        "gateway/judging/trust.py",
        "leading = leading and turn.role is Role.SYSTEM",
        "leading = turn.role is Role.SYSTEM",
        ("wire_05_roles_a_system_message_from_further_on_is_never_trusted",),
        function="_trusted",
    ),
    Mutant(
        "only the dialect's system fields may be trusted",
        "gateway/judging/trust.py",
        " and part.path[0] in system_fields",
        "",
        ("wire_05_roles_only_a_field_for_system_text_is_ever_trusted",),
        function="_trusted",
    ),
    Mutant(
        "a field for names holds names",
        "gateway/dialects/request_fields.py",
        "        require_names({name: value}, frozenset({name}), ())\n",
        "",
        ("threat_06_unread_shapes_a_field_for_names_takes_no_text",),
        function="Identifier.check",
    ),
    Mutant(
        "a call's arguments are read as the JSON they are",
        FIELDS,
        "yield from leaves(decoded, (*path, JSON_MARK), Kind.TOOL_CALL)",
        "yield Part(path, value, Kind.TOOL_CALL)",
        (
            "wire_06_tools_schemas_and_calls_are_read_as_they_are_meant",
            "wire_06_tool_calls_are_read_as_they_are_meant",
        ),
        function="arguments",
    ),
    Mutant(
        "escapes in arguments are undone while they stream",
        CHANNEL,
        "text, self._offsets = unescaped(text)",
        "pass",
        ("wire_06_tool_call_arguments_are_read_while_split_over_deltas",),
        function="ChannelText.read",
    ),
    Mutant(
        "reasoning that is sent back is read",
        CHAT,
        "    for name, text_kind in MESSAGE_TEXT.items():\n",
        '    for name, text_kind in (("name", Kind.NAME),):\n',
        ("wire_07_reasoning_and_annotations_sent_back_are_read",),
        function="_message_parts",
    ),
    Mutant(
        "every field of a delta is read",
        CHAT_STREAM,
        "yield from texts(delta, DELTA_TEXT, (index,))",
        'yield from texts(delta, {"content": Kind.TEXT}, (index,))',
        ("wire_07_reasoning_thinking_annotations_and_transcripts_are_read",),
        function="ChatDelta.read",
    ),
    Mutant(
        "text is read as a reader sees it",
        NORMALISE,
        "return _settled(text, (_seen, _composed, _latin, _simplified, _closed_up))",
        "return _settled(text, ())",
        (
            "wire_08_unicode_costumes_hide_no_number",
            "wire_08_unicode_costumes_hide_no_number_in_a_stream",
            "wire_08_unicode_costumes_and_codes_hide_no_question",
        ),
        function="normalise",
    ),
    Mutant(
        "hidden text is decoded",
        "guard_runtime/text/encodings.py",
        "MAX_DEPTH = 2\n",
        "MAX_DEPTH = 0\n",
        ("wire_08_unicode_costumes_and_codes_hide_no_question",),
    ),
    Mutant(
        "decoding ends",
        "guard_runtime/text/encodings.py",
        "MAX_DEPTH = 2\n",
        "MAX_DEPTH = 9\n",
        ("threat_13_decoding_bombs_cost_no_more_than_two_layers",),
    ),
    Mutant(
        "a long part is read to its end",
        PASSAGE_GUARD,
        "return windows(length, size=limits.section,",
        "return windows(min(length, limits.section), size=limits.section,",
        ("wire_09_length_and_padding_hide_no_word",),
        function="_sections",
    ),
    Mutant(
        "what was left out is said",
        PASSAGE_GUARD,
        "        if gap is not None:\n",
        "        if False:\n",
        ("wire_09_length_beyond_what_is_read_is_unread_and_never_passed",),
        function="_left_out",
    ),
    Mutant(
        "every window is read",
        CLASSIFIER,
        "for window in laid.slices or ((0, 0),):",
        "for window in laid.slices[:1] or ((0, 0),):",
        (
            "wire_09_length_and_padding_hide_no_question",
            "threat_09_token_dense_text_is_read_to_its_end_or_said_to_be_unread",
        ),
        function="Classifier._read",
    ),
    Mutant(
        "a check reads the end of what was cleared again",
        CHANNEL,
        "self.context = self.rules.reread(known, self.rules.overlap)",
        'self.context = ""',
        ("wire_10_stream_edges_a_word_split_over_a_release_is_found",),
        function="ChannelText._clear_to",
    ),
    Mutant(
        "each choice's text is one of its own",
        HOLD,
        "key = (delta.channel, unreadable)",
        "key = (delta.channel[1:], unreadable)",
        ("wire_10_stream_edges_text_across_choices_is_kept_apart",),
        function="HoldBuffer._key",
    ),
    Mutant(
        "what cannot be written is the upstream's failure",
        "gateway/dialects/sse.py",
        "except (TypeError, UnicodeEncodeError) as exc:",
        "except ZeroDivisionError as exc:",
        ("wire_10_stream_edges_half_a_character_leaves_nothing_unread",),
        function="encode",
    ),
    Mutant(
        "policies are applied after the cache",
        JUDGE,
        "        rules = policy.toward(direction)\n",
        '        rules = self.__dict__.setdefault("rules", policy.toward(direction))\n',
        ("wire_11_cache_one_tenants_verdict_is_no_other_tenants_decision",),
        function="Judge._ask",
    ),
    Mutant(
        "the user's short texts are read joined, however far apart",
        PASSAGE_GUARD,
        "            yield short[-limits.shorts :]\n",
        "            yield []\n",
        ("wire_05_roles_and_turns_a_request_split_over_far_turns_is_read_joined",),
        function="_joinable",
    ),
    Mutant(
        "what is remembered is remembered for one tenant",
        "gateway/api/app.py",
        ", scope=tenant.id)\n    return Exchange(",
        ", scope='')\n    return Exchange(",
        ("wire_11_cache_tells_no_tenant_what_another_has_sent",),
        function="_read_exchange",
    ),
    Mutant(
        "a guard's version is part of what is looked up",
        "guard_runtime/serving/verdict_cache.py",
        "    yield guard.encode()\n",
        "",
        ("wire_11_cache_another_version_or_direction_is_asked_anew",),
        function="_fields",
    ),
    Mutant(
        "half a reading is none",
        PASSAGE_GUARD,
        "            check.failure = exc\n",
        "            pass\n",
        ("wire_11_cache_no_failure_is_remembered_and_no_answer_served_twice",),
        function="PassageGuard._score_rest",
    ),
    Mutant(
        "a guard's failure is answered by the policy",
        JUDGE,
        "failed = Decision(rules.on_guard_failure,",
        "failed = Decision(Action.ALLOW,",
        ("wire_12_fail_path_of_every_kind_is_closed",),
        function="Judge._ask",
    ),
    Mutant(
        "a guard's bug is met",
        PIPELINE,
        "except ExceptionGroup as bugs:",
        "except ZeroDivisionError as bugs:",
        (
            "wire_12_fail_path_of_every_kind_is_closed",
            "wire_12_fail_path_a_bug_in_a_guard_is_met_on_the_answer_too",
        ),
        function="Pipeline._ask_guards",
    ),
    Mutant(
        "a failure is counted",
        "gateway/telemetry/metrics.py",
        'result = "failed" if judgement.failures else "judged"',
        'result = "judged"',
        ("wire_12_fail_path_that_a_policy_opens_is_counted",),
        function="Metrics.write",
    ),
    Mutant(
        "each category has its own score",
        "gateway/policy/policy.py",
        "score = reading.scores[category]",
        "score = max(reading.scores.values())",
        ("wire_12_fail_path_one_category_is_not_taken_for_another",),
        function="_fired",
    ),
    Mutant(
        "nothing but the key says who asks",
        APP,
        "    return snapshot.tenants.find(presented(",
        '    told = (headers.get("x-forwarded-user"), request.query_params.get("tenant"))\n'
        "    for tenant in snapshot.tenants:\n"
        "        if tenant.id in told:\n"
        "            return tenant\n"
        "    return snapshot.tenants.find(presented(",
        ("wire_13_headers_of_the_callers_change_nothing", "threat_05_policy_downgrade_by_body_is_refused_or_ignored"),
        function="_tenant",
    ),
    Mutant(
        "a key may stand once",
        "gateway/strict/strict_json.py",
        "raise DuplicateKey(key)",
        "continue",
        ("wire_13_headers_and_bodies_with_a_key_twice_are_refused",),
        function="_object",
    ),
    Mutant(
        "the model is asked by its own name",
        "gateway/exchange.py",
        'body = {**body, "model": self.route.model}',
        "body = {**body}",
        ("wire_13_the_model_gets_the_object_that_was_judged",),
        function="Exchange.upstream_request",
    ),
    Mutant(
        "an event has a largest size",
        "gateway/dialects/sse.py",
        "if self._size + len(self._buffer) > self._max_frame:",
        "if False:",
        ("wire_13_a_huge_event_ends_the_stream_and_is_not_kept",),
        function="Decoder._lines",
    ),
    Mutant(
        "of two equal keys in an event the last is read and sent on",
        "gateway/dialects/sse.py",
        "parsed = orjson.loads(data)",
        'parsed = __import__("json").loads(data, object_pairs_hook=lambda pairs: dict(reversed(pairs)))',
        ("wire_13_a_key_twice_in_an_event_is_sent_on_as_it_was_read",),
        function="_parsed",
    ),
    Mutant(
        "records hold no text unless the policy says so",
        "gateway/pipeline/record_builder.py",
        "if self.admitted and policy is not None and policy.record_text else None",
        "if self.admitted else None",
        ("wire_14_leaks_no_reply_record_metric_or_log_repeats_the_content",),
        function="RecordBuilder.build",
    ),
    Mutant(
        "scores are told where the policy says so",
        "gateway/pipeline/replies.py",
        "if policy.expose_scores and judgement is not None:",
        "if judgement is not None:",
        ("wire_14_leaks_scores_are_no_oracle",),
        function="headers_of",
    ),
    Mutant(
        "an outage is no verdict",
        PIPELINE,
        "    if isinstance(action, Outage):\n        raise GuardUnavailable(NOT_CHECKED)\n",
        "    if isinstance(action, Outage):\n        return Replace(action.decision)\n",
        ("wire_14_leaks_an_outage_and_a_verdict_are_two_things_to_the_caller",),
        function="_remedy",
    ),
    Mutant(
        "another answer is judged too",
        PIPELINE,
        "            if isinstance(_remedy(judgement, reply), Pass):\n",
        "            if True:\n",
        ("wire_15_retry_every_answer_that_is_asked_for_again_is_judged",),
        function="Pipeline._regenerated",
    ),
    Mutant(
        "a prompt is judged once",
        PIPELINE,
        "        asked = await self._judged_prompt(exchange, builder)\n",
        "        await self._judged(exchange, exchange.conversation, builder)\n"
        "        asked = await self._judged_prompt(exchange, builder)\n",
        ("wire_15_retry_one_prompt_and_one_answer_are_judged_once_each",),
        function="Pipeline.serve",
    ),
    Mutant(
        "control tokens are text",
        "guard_runtime/guards/plain_tokenizer.py",
        "(?={'|'.join(rests)})",
        "(?=never)",
        ("threat_01_injection_of_control_tokens_is_spelt_out_and_not_obeyed",),
        function="_spelt",
    ),
    Mutant(
        "a text that looks like a verdict is text",
        FIELDS,
        "    yield Part(path, value, kind)\n\n\ndef mapping",
        '    if not value.startswith("{"):\n        yield Part(path, value, kind)\n\n\ndef mapping',
        ("threat_02_verdict_forging_a_text_that_looks_like_a_verdict_is_only_text",),
    ),
    Mutant(
        "a field of a delta that nobody knows is held",
        CHAT_STREAM,
        "for key in unread(delta, DELTA_KNOWN, DELTA_NAMES):",
        "for key in ():",
        ("threat_06_unread_shapes_of_new_fields_are_held_and_answered_for",),
        function="ChatDelta.read",
    ),
    Mutant(
        "a field of an answer that nobody knows is answered for",
        FIELDS,
        "for key in unread(holder, known, names):",
        "for key in ():",
        ("threat_06_unread_shapes_in_a_plain_answer_are_answered_for",),
        function="strangers",
    ),
    Mutant(
        "letters that the guard does not know are unread",
        CLASSIFIER,
        "if unknown >= MIN_UNKNOWN and",
        "if False and",
        ("threat_10_blind_spots_of_the_vocabulary_are_unread_and_never_passed",),
        function="Classifier._unread",
    ),
    Mutant(
        "stacked marks are capped",
        NORMALISE,
        "    if len(cluster) <= MAX_MARKS:\n",
        "    if len(cluster) <= 10**9:\n",
        ("threat_14_unicode_that_expands_or_stacks_hides_no_number",),
        function="_capped",
    ),
    Mutant(
        "a caller's own host is refused at every depth",
        "gateway/upstreams/forbidden.py",
        "        waiting.extend(",
        "        tuple(",
        ("threat_17_hosts_and_keys_named_by_a_caller_are_refused_at_every_depth",),
        function="refuse_forbidden",
    ),
    Mutant(
        "an event is one event",
        "gateway/dialects/sse.py",
        '        return b"data: " + data + b"\\n\\n"\n',
        '        return b"data: " + data.replace(b"\\\\n", b"\\n") + b"\\n\\n"\n',
        ("threat_18_one_event_in_is_one_event_out",),
        function="encode",
    ),
)
