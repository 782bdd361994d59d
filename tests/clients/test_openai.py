"""The `openai` Python client against a running node. The client is installed into a virtual environment in the cache
directory, outside the checkout; where that cannot be had, the suite is skipped with the reason."""

import subprocess
import unittest

from support.environment import python_with
from support.shoal import Node

CLIENT = "openai==3.52.0"
PYTHON, REASON = python_with(CLIENT, "clients")

SCRIPT = r'''
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
ask = dict(model="shoal-demo", messages=[{"role": "user", "content": "What is the capital of Norway?"}], temperature=0)
assert "shoal-demo" in [model.id for model in client.models.list()]

whole = client.chat.completions.create(**ask)
assert "Oslo" in whole.choices[0].message.content, whole
assert whole.choices[0].finish_reason == "stop" and whole.usage.completion_tokens > 2
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == whole.choices[0].message.content, text
assert chunks[0].choices[0].delta.role == "assistant"
assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens

cut = client.chat.completions.create(**ask, max_tokens=3)
assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 3
stopped = client.chat.completions.create(**ask, stop=["Oslo"])
assert stopped.choices[0].finish_reason == "stop" and "Oslo" not in stopped.choices[0].message.content

warm = {**ask, "temperature": 1.2, "seed": 11, "messages": [{"role": "user", "content": "Tell me a story about a fox and a whale."}]}
assert client.chat.completions.create(**warm).choices[0].message.content == client.chat.completions.create(**warm).choices[0].message.content
two = client.chat.completions.create(**{**warm, "n": 2, "max_tokens": 12})
assert len(two.choices) == 2 and two.choices[0].message.content != two.choices[1].message.content
logprobs = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3, max_tokens=4).choices[0].logprobs.content
assert len(logprobs) == 4 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in logprobs)

def refused(kind, **changes):
    try:
        client.chat.completions.create(**{**ask, **changes})
    except kind as error:
        return error
    raise AssertionError(f"{changes} was accepted")
assert refused(openai.NotFoundError, model="no-such-model").code == "model_not_found"
assert "temperature" in refused(openai.BadRequestError, temperature=9).message
assert refused(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 9000}]).code == "context_length_exceeded"
assert "messages" in refused(openai.BadRequestError, messages=[]).message
print("all good")
'''


@unittest.skipUnless(PYTHON, f"the openai client cannot be installed here: {REASON}")
class OpenAiClient(unittest.TestCase):
    def test_the_client_streams_a_chat(self):
        with Node("openai", "--model", "shoal-demo", "--listen", "127.0.0.1", cluster="openai") as node:
            node.wait_healthy()
            done = subprocess.run([str(PYTHON), "-c", SCRIPT, f"http://127.0.0.1:{node.port}/v1"], capture_output=True,
                                  text=True, timeout=120)
            self.assertEqual(done.stdout.strip(), "all good", done.stderr[-3000:] + node.output()[-2000:])


if __name__ == "__main__":
    unittest.main()
