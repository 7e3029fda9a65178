// Package sdk holds what Go servers see: the official HTTP library against a running node. What it publishes is
// received by a pusher-js client in a process of its own (node/support/witness.js), because Go has no client library.
package sdk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	pusher "github.com/pusher/pusher-http-go/v5"
)

const deadline = 10 * time.Second

type credentials struct{ ID, Key, Secret string }

var settings struct {
	Host string
	Port int
	Node string
	Apps map[string]credentials
	// Webhooks that a node sent moments ago.
	Hooks struct {
		Kinds    []string
		Captured []struct {
			Headers map[string]string
			Body    string
		}
	}
}

func TestMain(m *testing.M) {
	text, err := os.ReadFile(os.Getenv("FULMAR_SDK_SETTINGS"))
	if err == nil {
		err = json.Unmarshal(text, &settings)
	}
	if err != nil {
		fmt.Println("no settings: run this through tests/sdk/run:", err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// client is the customer's server with the credentials of an app.
func client(app string) *pusher.Client {
	of := settings.Apps[app]
	return &pusher.Client{
		AppID: of.ID, Key: of.Key, Secret: of.Secret, Host: fmt.Sprintf("%s:%d", settings.Host, settings.Port),
		EncryptionMasterKeyBase64: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
	}
}

// unique names a channel that no other test uses.
func unique(t *testing.T, prefix string) string {
	return fmt.Sprintf("%s-go-%d-%s", prefix, os.Getpid(), strings.ToLower(t.Name()))
}

// heard is one event as pusher-js hands it to an application.
type heard struct {
	Ready   string
	Channel string
	Event   string
	Data    interface{}
}

// witness is a subscriber in a process of its own that ends with the test.
type witness struct {
	t        *testing.T
	socketID string
	lines    chan heard
}

func newWitness(t *testing.T, arguments ...string) *witness {
	t.Helper()
	if settings.Node == "" {
		t.Skip("node is not installed: nobody can receive what Go publishes")
	}
	script, _ := filepath.Abs("../node/support/witness.js")
	if _, err := os.Stat(filepath.Join(filepath.Dir(script), "../node_modules")); err != nil {
		t.Skip("pusher-js is not installed: run the group pusher-js-8 once")
	}
	process := exec.Command(settings.Node, append([]string{script}, arguments...)...)
	process.Stderr = os.Stderr
	input, err := process.StdinPipe()
	must(t, err)
	output, err := process.StdoutPipe()
	must(t, err)
	must(t, process.Start())
	w := &witness{t: t, lines: make(chan heard, 1000)}
	go func() {
		defer close(w.lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			var line heard
			if json.Unmarshal(scanner.Bytes(), &line) == nil {
				w.lines <- line
			}
		}
	}()
	t.Cleanup(func() {
		input.Close()
		_ = process.Wait()
	})
	w.socketID = w.next().Ready
	return w
}

func (w *witness) next() heard {
	w.t.Helper()
	select {
	case line, open := <-w.lines:
		if !open {
			w.t.Fatal("the witness ended")
		}
		return line
	case <-time.After(deadline):
		w.t.Fatal("nothing arrived within the deadline")
	}
	return heard{}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got, want interface{}) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

func text(value string) *string { return &value }

// WS-65: Go writes <, > and & as escapes.
func TestEveryKindOfDataArrivesAsPublished(t *testing.T) {
	name := unique(t, "data")
	w := newWitness(t, name)
	for _, sent := range []interface{}{
		"plain", "", "Zoë ☃ 🦉 <b>&amp;</b> \u2028 \"\\/", strings.Repeat("x", 10240),
		map[string]interface{}{"message": "Zoë <3", "list": []interface{}{1.0, nil, true}},
	} {
		must(t, client("everything").Trigger(name, "App\\Events\\Sent", sent))
		got := w.next()
		expect(t, got.Event, "App\\Events\\Sent")
		expect(t, got.Data, sent)
	}
}

// WS-66, WS-67, HTTP-30
func TestSeveralChannelsExclusionAndInfo(t *testing.T) {
	one, presence := unique(t, "one"), unique(t, "presence-two")
	w := newWitness(t, "--member", "ana", one, presence)
	names := []string{one, presence}
	params := pusher.TriggerParams{SocketID: &w.socketID, Info: text("user_count,subscription_count")}
	list, err := client("everything").TriggerMultiWithParams(names, "event", "for others", params)
	must(t, err)
	expect(t, *list.Channels[one].SubscriptionCount, 1)
	expect(t, *list.Channels[presence].UserCount, 1)
	must(t, client("everything").TriggerMulti(names, "event", "for all"))
	got := []heard{w.next(), w.next()}
	sort.Slice(got, func(i, j int) bool { return got[i].Channel < got[j].Channel })
	expect(t, got, []heard{
		{Channel: one, Event: "event", Data: "for all"},
		{Channel: presence, Event: "event", Data: "for all"},
	})
}

// HTTP-34, HTTP-35
func TestABatchArrivesInOrderWithItsInfo(t *testing.T) {
	name := unique(t, "batch")
	w := newWitness(t, name)
	answer, err := client("everything").TriggerBatch([]pusher.Event{
		{Channel: name, Name: "event", Data: "first"},
		{Channel: name, Name: "event", Data: "second", Info: text("subscription_count")},
	})
	must(t, err)
	expect(t, len(answer.Batch), 2)
	expect(t, *answer.Batch[1].SubscriptionCount, 1)
	expect(t, w.next().Data, "first")
	expect(t, w.next().Data, "second")
}

// WS-96
func TestAnEncryptedEventIsOpenedByTheClient(t *testing.T) {
	name := unique(t, "private-encrypted")
	w := newWitness(t, name)
	must(t, client("everything").Trigger(name, "event", map[string]string{"secret": "Zoë"}))
	expect(t, w.next().Data, map[string]interface{}{"secret": "Zoë"})
}

// HTTP-36, HTTP-37, HTTP-39, HTTP-41, HTTP-43
func TestQueries(t *testing.T) {
	name := unique(t, "presence-query")
	first, second := newWitness(t, "--member", "7", name), newWitness(t, "--member", "ana", name)
	_, _ = first, second
	c := client("everything")
	list, err := c.Channels(pusher.ChannelsParams{FilterByPrefix: &name, Info: text("user_count")})
	must(t, err)
	expect(t, list.Channels, map[string]pusher.ChannelListItem{name: {UserCount: 2}})
	list, err = c.Channels(pusher.ChannelsParams{FilterByPrefix: text("nothing-begins-so")})
	must(t, err)
	expect(t, len(list.Channels), 0)
	channel, err := c.Channel(name, pusher.ChannelParams{Info: text("user_count,subscription_count")})
	must(t, err)
	expect(t, *channel, pusher.Channel{Name: name, Occupied: true, UserCount: 2, SubscriptionCount: 2})
	channel, err = c.Channel(unique(t, "empty"), pusher.ChannelParams{})
	must(t, err)
	expect(t, channel.Occupied, false)
	users, err := c.GetChannelUsers(name)
	must(t, err)
	sort.Slice(users.List, func(i, j int) bool { return users.List[i].ID < users.List[j].ID })
	expect(t, users.List, []pusher.User{{ID: "7"}, {ID: "ana"}})
}

// HTTP-27
func TestAnEventForAUserIsAccepted(t *testing.T) {
	must(t, client("everything").SendToUser("user-7", "event", "x"))
}

// HTTP-19, HTTP-23, HTTP-25, HTTP-46
func TestRefusalsCarryStatusAndText(t *testing.T) {
	wrong := client("everything")
	wrong.Secret = "wrong"
	large := client("everything")
	large.OverrideMaxMessagePayloadKB = 20 // So that the node refuses and not the library.
	for _, refused := range []struct {
		err  error
		want []string
	}{
		{wrong.Trigger("c", "event", "x"), []string{"401", "Invalid signature: you should have sent"}},
		{client("everything").Trigger("c", "pusher:event", "x"), []string{"400", "'pusher' namespace is reserved"}},
		{large.Trigger("c", "event", strings.Repeat("x", 10241)), []string{"413", "10240"}},
		{client("disabled").Trigger("c", "event", "x"), []string{"403"}},
	} {
		if refused.err == nil {
			t.Fatalf("accepted, where %v was expected", refused.want)
		}
		for _, part := range refused.want {
			if !strings.Contains(refused.err.Error(), part) {
				t.Fatalf("%q lacks %q", refused.err, part)
			}
		}
	}
	_, err := client("everything").GetChannelUsers("not-presence")
	if err == nil || !strings.Contains(err.Error(), "400") {
		t.Fatalf("got %v, want a 400", err)
	}
}

// HOOK-1, HOOK-2, HOOK-4, HOOK-5, trap T-44
func TestTheGoLibraryTakesEveryWebhook(t *testing.T) {
	if len(settings.Hooks.Captured) == 0 {
		t.Skip("nobody captured webhooks: node is not installed")
	}
	told := map[string]bool{}
	for _, request := range settings.Hooks.Captured {
		header := http.Header{}
		for name, value := range request.Headers {
			header.Set(name, value)
		}
		webhook, err := client("everything").Webhook(header, []byte(request.Body))
		if err != nil {
			t.Fatalf("%v: %s", err, request.Body)
		}
		for _, event := range webhook.Events {
			told[event.Name] = true
		}
	}
	for _, kind := range settings.Hooks.Kinds {
		if !told[kind] {
			t.Errorf("no %s", kind)
		}
	}
}
