"""The queue's messages are kept, settled and put aside, whatever SQS does meanwhile."""

import threading
from typing import Any

from deployments.listener.messages import Message, Messages
from tests.deployments.listening import Account


class Held:
    """SQS, which answers nothing about one receipt until it is let go."""

    def __init__(self, held: str) -> None:
        self.held, self.asked, self.let_go = held, threading.Event(), threading.Event()
        self.calls: list[tuple[str, int]] = []

    def receive_message(self, **_: object) -> dict[str, Any]:
        return {
            "Messages": [
                {"MessageId": name, "ReceiptHandle": name, "Body": "{}", "Attributes": {"ApproximateReceiveCount": "1"}}
                for name in ("held", "other")
            ]
        }

    def change_message_visibility(self, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:
        if ReceiptHandle == self.held and not self.let_go.is_set():
            self.asked.set()
            assert self.let_go.wait(60)
        self.calls.append((ReceiptHandle, VisibilityTimeout))

    def delete_message(self, QueueUrl: str, ReceiptHandle: str) -> None:
        self.calls.append((ReceiptHandle, 0))


def test_a_slow_answer_about_one_message_holds_up_no_other() -> None:
    sqs = Held("held")
    with Messages(sqs, "queue", "dead", visibility_seconds=0) as messages:  # extends without a pause
        held, other = messages.take()
        assert sqs.asked.wait(60)
        messages.done(other)
        messages.take()
        given_back = threading.Thread(target=messages.give_back, args=(held, 30))
        given_back.start()
        sqs.let_go.set()
        given_back.join()
    assert ("other", 0) in sqs.calls


def test_a_message_that_is_given_back_is_not_extended_afterwards() -> None:
    sqs = Held("held")
    messages = Messages(sqs, "queue", "dead")
    held, _ = messages.take()
    in_hand = messages._working[held.handle]
    extending = threading.Thread(target=messages._extend, args=(in_hand,))
    extending.start()
    assert sqs.asked.wait(60)
    giving_back = threading.Thread(target=messages.give_back, args=(held, 7))
    giving_back.start()
    sqs.let_go.set()
    for thread in (extending, giving_back):
        thread.join()
    messages._extend(in_hand)
    assert sqs.calls[-1] == ("held", 7)


def test_a_reason_of_any_characters_and_length_reaches_the_dead_letters(account: Account) -> None:
    account.send("no json")
    messages = account.messages()
    (message,) = messages.take(1)
    messages.put_aside(message, "key '\x00\x1b\ud800\uffff ä' " + "x" * 5000)
    [(body, reason)] = account.dead()
    assert body == "no json"
    assert reason.startswith("key '\\x00\\x1b\\ud800\\uffff ä' xxx")
    assert account.waiting() == 0


def test_the_last_delivery_is_known() -> None:
    fourth, fifth = (Message(id="1", handle="h", body="", deliveries=count) for count in (4, 5))
    assert not fourth.is_last_delivery
    assert fifth.is_last_delivery
