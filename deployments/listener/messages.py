"""The queue: take messages, keep them during the work on them, then delete them, return them or put them aside.

`log` is the listener's log, with one line for each of its decisions.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict

log = logging.getLogger("spaceport.listener")


VISIBILITY_SECONDS = 120  # a message is ours for this long unless it is extended
POLL_SECONDS = 20  # the longest that SQS waits for messages
AT_ONCE = 10  # the most that SQS delivers
REASON_CHARACTERS = 1000
ATTEMPTS = 5  # as in deployments/aws/stacks/data.py; the last one says why it failed


class Message(BaseModel):
    """One delivery of a message."""

    model_config = ConfigDict(frozen=True)

    id: str
    handle: str
    body: str
    deliveries: int

    @property
    def is_last_delivery(self) -> bool:
        """Whether SQS itself would put the message aside next."""
        return self.deliveries >= ATTEMPTS


@dataclass
class _InHand:
    """A message in progress. The lock is held during calls of SQS about it."""

    message: Message
    lock: threading.Lock = field(default_factory=threading.Lock)


class Messages:
    """A queue and its dead letters. As a context manager it extends messages in progress, in a thread."""

    def __init__(
        self, sqs: Any, queue_url: str, dead_letters_url: str, visibility_seconds: int = VISIBILITY_SECONDS
    ) -> None:
        self._sqs, self._queue, self._dead = sqs, queue_url, dead_letters_url
        self._visibility = visibility_seconds
        self._working: dict[str, _InHand] = {}  # by receipt
        self._lock = threading.Lock()  # of that dictionary; never held during a call of SQS
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="visibility", daemon=True)

    def __enter__(self) -> "Messages":
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._keeper.join()

    def take(self, wait_seconds: int = POLL_SECONDS) -> list[Message]:
        """Return up to ten messages; waits for the first."""
        answer = self._sqs.receive_message(
            QueueUrl=self._queue,
            MaxNumberOfMessages=AT_ONCE,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self._visibility,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        taken = [
            Message(
                id=each["MessageId"],
                handle=each["ReceiptHandle"],
                body=each["Body"],
                deliveries=int(each["Attributes"]["ApproximateReceiveCount"]),
            )
            for each in answer.get("Messages", [])
        ]
        with self._lock:
            self._working.update({message.handle: _InHand(message) for message in taken})
        return taken

    def done(self, message: Message) -> None:
        """Delete a message that has been dealt with, so that it is not delivered again."""
        with self._settling(message):
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message.handle)

    def give_back(self, message: Message, after_seconds: int) -> None:
        """Return a message to the queue, which delivers it again after a while."""
        with self._settling(message):
            self._set_visibility(message, after_seconds)

    def put_aside(self, message: Message, reason: str) -> None:
        """Move a message to the dead letters with the reason, which SQS itself would not add."""
        with self._settling(message):
            self._sqs.send_message(
                QueueUrl=self._dead,
                MessageBody=message.body or " ",
                MessageAttributes={"reason": {"DataType": "String", "StringValue": _attribute(reason) or "unknown"}},
            )
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message.handle)

    @contextmanager
    def _settling(self, message: Message) -> Iterator[None]:
        """Stop extending the message, above all when it is returned to the queue."""
        with self._lock:
            in_hand = self._working.pop(message.handle, None)
        with in_hand.lock if in_hand else nullcontext():  # waits for an extension of this message alone
            yield

    def _keep(self) -> None:
        while not self._ended.wait(self._visibility / 3):
            with self._lock:
                working = list(self._working.values())
            for in_hand in working:
                self._extend(in_hand)

    def _extend(self, in_hand: _InHand) -> None:
        """Keep a message for longer, unless it was settled meanwhile."""
        message = in_hand.message
        with in_hand.lock:
            with self._lock:
                settled = message.handle not in self._working
            if settled:
                return
            try:
                self._set_visibility(message, self._visibility)
            except (BotoCoreError, ClientError) as error:
                log.warning("message %s could not be extended (%s)", message.id, error)

    def _set_visibility(self, message: Message, seconds: int) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self._queue, ReceiptHandle=message.handle, VisibilityTimeout=seconds
        )


def _attribute(text: str) -> str:
    """Keep only characters that SQS accepts. It rejects others, and the message would be delivered again forever."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[:REASON_CHARACTERS]
    )
