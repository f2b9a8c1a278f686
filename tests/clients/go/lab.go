package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// lab is what one scenario works with: names no other run has, and clients that end with the scenario.
type lab struct {
	namesrv []string
	run     string
	mu      sync.Mutex
	closers []func() error
}

// patience is how long anything may take to come true, on however busy a machine; nothing is slower for it.
const patience = 120 * time.Second

var instances int64

func newLab(namesrv, run string) *lab {
	return &lab{namesrv: strings.Split(namesrv, ";"), run: run}
}

func (l *lab) topic(name string) string { return "t_" + name + "_" + l.run }

func (l *lab) group(name string) string { return "g_" + name + "_" + l.run }

// Every client has an instance name of its own, so that clients of one process share no connection.
func instance() string { return fmt.Sprintf("go%d", atomic.AddInt64(&instances, 1)) }

func (l *lab) closing(closer func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, closer)
}

func (l *lab) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, closer := range l.closers {
		if err := closer(); err != nil {
			fmt.Println("on closing:", err)
		}
	}
}

func (l *lab) producer(options ...producer.Option) (rocketmq.Producer, error) {
	options = append([]producer.Option{
		producer.WithNameServer(l.namesrv),
		producer.WithGroupName(l.group("producer")),
		producer.WithInstanceName(instance()),
		producer.WithRetry(3),
	}, options...)
	p, err := rocketmq.NewProducer(options...)
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	l.closing(p.Shutdown)
	return p, nil
}

type handler = func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

// push starts a consumer that reads a new group from the first message on.
func (l *lab) push(group, topic, tags string, handle handler, options ...consumer.Option) (rocketmq.PushConsumer, error) {
	options = append([]consumer.Option{
		consumer.WithNameServer(l.namesrv),
		consumer.WithGroupName(group),
		consumer.WithInstance(instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)
	c, err := rocketmq.NewPushConsumer(options...)
	if err != nil {
		return nil, err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: tags}
	if err := c.Subscribe(topic, selector, handle); err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	var once sync.Once
	l.closing(func() (err error) {
		once.Do(func() { err = c.Shutdown() })
		return err
	})
	return c, nil
}

// places holds where a consumer's messages are stored.
type places struct {
	mu   sync.Mutex
	seen map[string]bool
}

func newPlaces() *places { return &places{seen: map[string]bool{}} }

func (s *places) handle(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		s.seen[fmt.Sprintf("%d/%d", m.Queue.QueueId, m.QueueOffset)] = true
	}
	return consumer.ConsumeSuccess, nil
}

func (s *places) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// inbox holds what a consumer got, by payload.
type inbox struct {
	mu    sync.Mutex
	count map[string]int
}

func newInbox() *inbox { return &inbox{count: map[string]int{}} }

func (b *inbox) handle(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range messages {
		b.count[string(m.Body)]++
	}
	return consumer.ConsumeSuccess, nil
}

func (b *inbox) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.count)
}

func (b *inbox) missing(expected []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missing []string
	for _, payload := range expected {
		if b.count[payload] == 0 {
			missing = append(missing, payload)
		}
	}
	return missing
}

func (b *inbox) await(expected []string, limit time.Duration) error {
	err := until(limit, "", func() bool { return len(b.missing(expected)) == 0 })
	if missing := b.missing(expected); err != nil && len(missing) > 0 {
		return fmt.Errorf("%d of %d messages not consumed within %s, first %s",
			len(missing), len(expected), limit, missing[0])
	}
	return nil
}

func until(limit time.Duration, what string, holds func() bool) error {
	for end := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %s: %s", limit, what)
		}
	}
	return nil
}

func message(topic, tag, payload string) *primitive.Message {
	return primitive.NewMessage(topic, []byte(payload)).WithTag(tag).WithKeys([]string{payload})
}

// send sends payloads "prefix-0" to "prefix-(count-1)" and returns them.
func send(p rocketmq.Producer, topic, prefix string, count int) ([]string, error) {
	var sent []string
	for i := 0; i < count; i++ {
		payload := fmt.Sprintf("%s-%d", prefix, i)
		result, err := p.SendSync(context.Background(), message(topic, "tag", payload))
		if err != nil {
			return nil, err
		}
		if result.Status != primitive.SendOK {
			return nil, fmt.Errorf("send status %v", result.Status)
		}
		sent = append(sent, payload)
	}
	return sent, nil
}
