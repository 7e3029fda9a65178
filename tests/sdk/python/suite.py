"""What Python applications see: `pusher` on a customer's server and `pysher` as a client, against a running node.

Prints one PASS, FAIL or SKIP line per test for `tests/sdk/run`. Waits for events with a deadline and never sleeps.
"""

import itertools
import json
import logging
import os
import queue
import sys
import threading
import traceback
import unittest

import pusher
import pusher.errors
import pysher

with open(os.environ["FULMAR_SDK_SETTINGS"], encoding="utf-8") as file:
    SETTINGS = json.load(file)
APPS = SETTINGS["apps"]
DEADLINE_S = 8
NUMBERS = itertools.count(1)


def unique(prefix):
    """A channel name that no other test uses."""
    return f"{prefix}-py-{os.getpid()}-{next(NUMBERS)}"


def server_for(app="everything", **changes):
    """The customer's server."""
    credentials = {**APPS[app], **changes}
    return pusher.Pusher(
        app_id=credentials["id"], key=credentials["key"], secret=credentials["secret"], ssl=False,
        host=SETTINGS["host"], port=SETTINGS["port"],
        encryption_master_key_base64="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")


class Client:
    """A connected pysher client whose channels write down what they hear."""

    def __init__(self, test, app="everything", port=None, user_data=None, secret=None):
        self.heard, self.errors = queue.Queue(), queue.Queue()
        self.sdk = pysher.Pusher(
            APPS[app]["key"], secret=secret or APPS[app]["secret"], secure=False, custom_host=SETTINGS["host"],
            port=port or SETTINGS["port"], user_data=user_data, log_level=logging.CRITICAL)
        established = queue.Queue()
        self.sdk.connection.bind("pusher:connection_established", established.put)
        self.sdk.connection.bind("pusher:error", self.errors.put)
        test.addCleanup(self.drop)
        self.sdk.connect()
        self.established = json.loads(established.get(timeout=DEADLINE_S))

    def join(self, name, *events, auth=None):
        """Subscribes and gives what `subscription_succeeded` brought."""
        answers = queue.Queue()
        # Bound before the subscribe is sent, as far as pysher allows: the channel object is made by `subscribe`.
        send = self.sdk.connection.send_event
        try:
            held = []
            self.sdk.connection.send_event = lambda *message, **more: held.append((message, more))
            channel = self.sdk.subscribe(name, auth)
        finally:
            self.sdk.connection.send_event = send
        channel.bind("pusher_internal:subscription_succeeded", answers.put)
        for event in events:
            channel.bind(event, lambda data, event=event: self.heard.put((event, data)))
        for message, more in held:
            send(*message, **more)
        return json.loads(answers.get(timeout=DEADLINE_S))

    def leave(self):
        """Disconnects as an application does; aside, because the library then waits 3 s for an answer it has had."""
        threading.Thread(target=self.sdk.disconnect, args=(0,), daemon=True).start()

    def drop(self):
        """Ends the connection at once, for good."""
        connection = self.sdk.connection
        connection.disconnect_called, connection.needs_reconnect = True, False
        if connection.socket and connection.socket.sock:
            connection.socket.sock.shutdown()

    def next(self):
        return self.heard.get(timeout=DEADLINE_S)


class ServerSdk(unittest.TestCase):
    """The `pusher` package."""

    def test_every_kind_of_data_arrives_as_it_was_published(self):
        # WS-65, HTTP-24, HTTP-25: Python escapes all that is not ASCII, twice.
        client, name = Client(self), unique("data")
        client.join(name, "event")
        server = server_for()
        for sent in ["plain", "", "Zoë ☃ 🦉 \u2028 \"\\/", "\u0000\u001f\n", "x" * 10240, "5", "🦉" * 2560]:
            with self.subTest(sent=sent[:20]):
                self.assertEqual(server.trigger(name, "event", sent), {})
                self.assertEqual(client.next(), ("event", sent))
        for sent in [{"message": "Zoë ☃", "n": [1, 2.5, None, True]}, ["list"], {}]:
            server.trigger(name, "event", sent)
            self.assertEqual(client.next(), ("event", json.dumps(sent, ensure_ascii=False)))

    def test_one_call_reaches_several_channels_and_spares_the_sender(self):
        # WS-66, WS-67
        sender, other = Client(self), Client(self)
        names = [unique("multi"), unique("multi")]
        for client in (sender, other):
            for name in names:
                client.join(name, "event", name)
        server = server_for()
        server.trigger(names, "event", "for others", sender.established["socket_id"])
        for name in names:
            server.trigger(name, name, "fence")
        self.assertEqual([sender.next() for _ in names], [(name, "fence") for name in names])
        self.assertEqual([other.next() for _ in range(4)],
                         [("event", "for others")] * 2 + [(name, "fence") for name in names])

    def test_a_batch_arrives_in_order(self):
        # HTTP-34, HTTP-8: ten events of 10 KB in escapes are a body of several times that size.
        client, name = Client(self), unique("batch")
        client.join(name, "event")
        texts = [f"{n}" + "☃" * 3300 for n in range(10)]
        # The package measures Python's own objects, so the text is handed over as already encoded.
        batch = [{"channel": name, "name": "event", "data": text} for text in texts]
        self.assertEqual(server_for().trigger_batch(batch, already_encoded=True), {})
        self.assertEqual([client.next()[1] for _ in texts], texts)

    def test_queries_answer_counts_and_users(self):
        # HTTP-15, HTTP-36, HTTP-37, HTTP-39, HTTP-41
        prefix = unique("presence-query")
        for user in (7, "ana", "ana"):
            Client(self, user_data={"user_id": user}).join(f"{prefix}-a")
        server = server_for()
        self.assertEqual(server.channels_info(prefix, ["user_count"]), {"channels": {f"{prefix}-a": {"user_count": 2}}})
        self.assertEqual(server.channels_info(unique("nothing")), {"channels": {}})
        self.assertEqual(server.channel_info(f"{prefix}-a", ["user_count", "subscription_count"]),
                         {"occupied": True, "user_count": 2, "subscription_count": 3})
        self.assertEqual(server.channel_info(unique("empty")), {"occupied": False})
        users = server.users_info(f"{prefix}-a")["users"]
        self.assertEqual(sorted(user["id"] for user in users), ["7", "ana"])

    def test_a_channel_with_every_allowed_sign_can_be_queried(self):
        # HTTP-11, HTTP-16
        name = f"presence-a_-=@,.;{unique('signs')}"
        Client(self, user_data={"user_id": "ana"}).join(name)
        server = server_for()
        self.assertTrue(server.channel_info(name)["occupied"])
        self.assertEqual(server.users_info(name), {"users": [{"id": "ana"}]})
        self.assertIn(name, server.channels_info("presence-a_-=@,.;")["channels"])

    def test_refusals_are_the_errors_of_the_package(self):
        # HTTP-19, HTTP-23, HTTP-25, HTTP-46
        errors = pusher.errors
        with self.assertRaises(errors.PusherBadAuth) as caught:
            server_for(secret="wrong").trigger("c", "event", "x")
        self.assertTrue(str(caught.exception).startswith("Invalid signature: you should have sent"))
        with self.assertRaises(errors.PusherBadAuth):
            server_for(key="nobody").channels_info()
        with self.assertRaises(errors.PusherBadRequest) as caught:
            server_for().trigger("c", "pusher:event", "x")
        self.assertIn("'pusher' namespace is reserved", str(caught.exception))
        with self.assertRaises(errors.PusherBadRequest):
            server_for().users_info("not-presence")
        with self.assertRaises(errors.PusherForbidden):
            server_for("disabled").trigger("c", "event", "x")
        with self.assertRaises(errors.PusherBadStatus) as caught:
            server_for().trigger("c", "event", "x" * 10241)
        self.assertTrue(str(caught.exception).startswith("413: "))

    def test_the_end_of_a_users_connections(self):
        # WS-125, WS-131, HTTP-67: the package leaves the app out of the path, and signs it so.
        user, server = unique("user"), server_for()
        client, other = Client(self), Client(self)
        for each, identity in [(client, user), (other, unique("user"))]:
            confirmations = queue.Queue()
            each.sdk.connection.bind("pusher:signin_success", confirmations.put)
            granted = server.authenticate_user(each.established["socket_id"], {"id": identity})
            each.sdk.connection.send_event("pusher:signin", granted)
            confirmed = json.loads(confirmations.get(timeout=DEADLINE_S))
            self.assertEqual(confirmed["user_data"], granted["user_data"])
        self.assertEqual(server.terminate_user_connections(user), {})
        self.assertEqual(client.errors.get(timeout=DEADLINE_S)["code"], 4009)
        self.assertEqual(server.terminate_user_connections(unique("nobody")), {})
        other.join(unique("still-here"))

    def test_an_encrypted_publish_is_accepted_and_kept_sealed(self):
        # WS-96
        client, name = Client(self), unique("private-encrypted")
        client.join(name, "event")
        server_for().trigger(name, "event", {"secret": "Zoë"})
        sealed = json.loads(client.next()[1])
        self.assertEqual(sorted(sealed), ["ciphertext", "nonce"])


class ClientSdk(unittest.TestCase):
    """The `pysher` package, which speaks protocol 6."""

    def test_it_connects_and_learns_its_socket_id(self):
        # WS-3, WS-18, WS-19
        self.assertRegex(Client(self).established["socket_id"], r"^\d+\.\d+$")

    def test_private_channels_and_the_signature_of_the_server_package(self):
        # WS-50
        client, name = Client(self), unique("private")
        self.assertEqual(client.join(name), {})
        other = unique("private")
        auth = server_for().authenticate(other, client.established["socket_id"])["auth"]
        self.assertEqual(client.join(other, auth=auth), {})

    def test_presence_data_with_spaces_and_escapes_is_verified_as_received(self):
        # WS-51, WS-78: pysher's channel_data is `{"user_id": "\u00e9-1", ...}` with spaces and escapes.
        client = Client(self, user_data={"user_id": "é-1", "user_info": {"name": "Zoë ☃"}})
        roster = client.join(unique("presence"))["presence"]
        self.assertEqual(roster, {"count": 1, "ids": ["é-1"], "hash": {"é-1": {"name": "Zoë ☃"}}})

    def test_members_come_and_go(self):
        # WS-82, WS-83, WS-80
        name = unique("presence")
        added, removed = "pusher_internal:member_added", "pusher_internal:member_removed"
        ana = Client(self, user_data={"user_id": "ana"})
        ana.join(name, added, removed)
        bob = Client(self, user_data={"user_id": 7})
        self.assertEqual(sorted(bob.join(name)["presence"]["ids"]), ["7", "ana"])
        event, data = ana.next()
        self.assertEqual((event, json.loads(data)), (added, {"user_id": "7"}))
        bob.leave()
        event, data = ana.next()
        self.assertEqual((event, json.loads(data)), (removed, {"user_id": "7"}))

    def test_client_events_carry_objects_and_strings(self):
        # WS-69, WS-73
        name = unique("private-chat")
        ana, bob = Client(self), Client(self)
        ana.join(name)
        bob.join(name, "client-said")
        channel = ana.sdk.channel(name)
        channel.trigger("client-said", {"text": "Zoë"})
        channel.trigger("client-said", "{\"already\": \"a string\"}")
        # pysher writes `{"text": "Zo\u00eb"}`; that very text is what arrives.
        self.assertEqual(bob.next(), ("client-said", "{\"text\": \"Zo\\u00eb\"}"))
        self.assertEqual(bob.next(), ("client-said", "{\"already\": \"a string\"}"))

    def test_a_refused_subscribe_is_an_error_and_the_connection_goes_on(self):
        # WS-55, WS-56
        client = Client(self, secret="a secret that nobody configured")
        client.sdk.subscribe(unique("private-forged"))
        error = client.errors.get(timeout=DEADLINE_S)
        self.assertIsNone(error["code"])
        self.assertTrue(error["message"].startswith("Invalid signature: Expected HMAC SHA256 hex digest of "))
        client.join(unique("public-after"))

    def test_a_late_client_gets_the_cached_event(self):
        # WS-92
        name = unique("cache")
        server_for().trigger(name, "event", {"kept": True})
        client = Client(self)
        client.join(name, "event")
        self.assertEqual(client.next(), ("event", json.dumps({"kept": True})))
        other = Client(self)
        other.join(unique("cache"), "pusher:cache_miss")
        self.assertEqual(other.next(), ("pusher:cache_miss", "{}"))

    def test_unsubscribing_and_subscribing_again_leaves_one_subscription(self):
        # WS-60, WS-62
        client, name = Client(self), unique("again")
        client.join(name, "event")
        client.sdk.unsubscribe(name)
        client.join(name, "event")
        server = server_for()
        server.trigger(name, "event", "1")
        server.trigger(name, "event", "2")
        self.assertEqual([client.next()[1], client.next()[1]], ["1", "2"])

    def test_the_client_library_answers_pings_of_the_node(self):
        # WS-36, WS-37: pysher itself says nothing for 120 s; only its library's answers to RFC pings keep it alive.
        client, pings = Client(self, port=SETTINGS["brisk_port"]), queue.Queue()
        client.sdk.connection.socket.on_ping = lambda *_: pings.put(True)
        for _ in range(3):  # Each comes after 2 s of silence; two unanswered seconds later the node would have closed.
            pings.get(timeout=DEADLINE_S)
        self.assertEqual(client.sdk.connection.state, "connected")
        self.assertEqual(client.join(unique("still-here")), {})


class Webhooks(unittest.TestCase):
    """Requests that a node sent moments ago, as `pusher` for Python judges them."""

    # HOOK-1, HOOK-2, HOOK-3, HOOK-14, trap T-45
    def test_the_python_library_takes_every_webhook(self):
        hooks = SETTINGS.get("hooks") or self.skipTest("nobody captured webhooks: node is not installed")
        server, names = server_for(), set()
        for request in hooks["captured"]:
            headers = request["headers"]
            told = server.validate_webhook(headers["x-pusher-key"], headers["x-pusher-signature"], request["body"])
            self.assertIsNotNone(told, request["body"])
            names.update(event["name"] for event in told["events"])
        self.assertEqual(names, set(hooks["kinds"]))


class Lines(unittest.TestResult):
    """Prints each result as the line that `tests/sdk/run` counts."""

    def startTest(self, test):
        super().startTest(test)
        self.broken = False

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.tell("FAIL", subtest, err)

    def addSuccess(self, test):
        if not self.broken:
            self.tell("PASS", test)

    def addError(self, test, err):
        super().addError(test, err)
        self.tell("FAIL", test, err)

    addFailure = addError

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell("SKIP", f"{test} ({reason})")

    def tell(self, verdict, test, err=None):
        self.broken = verdict == "FAIL"
        print(verdict, getattr(test, "_testMethodName", str(test)).removeprefix("test_").replace("_", " "), flush=True)
        if err:
            traceback.print_exception(*err, file=sys.stdout)


if __name__ == "__main__":
    outcome = Lines()
    unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]).run(outcome)
    sys.stdout.flush()
    # pysher leaves threads behind that nothing can join.
    os._exit(0 if outcome.wasSuccessful() else 1)
