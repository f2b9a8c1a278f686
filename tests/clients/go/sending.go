package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// Properties, tag and a body large enough to be compressed come back as they were sent.
func sendSync(l *lab) error {
	topic := l.topic("sync")
	p, err := l.producer()
	if err != nil {
		return err
	}
	large := strings.Repeat("large-payload-", 3000)
	var sent []string
	for i := 0; i < 20; i++ {
		payload := fmt.Sprintf("sync-%d", i)
		if i == 7 {
			payload = large
		}
		m := primitive.NewMessage(topic, []byte(payload)).WithTag("TagG")
		m.WithProperty("number", fmt.Sprint(i))
		result, err := p.SendSync(context.Background(), m)
		if err != nil {
			return err
		}
		if result.Status != primitive.SendOK || result.MsgID == "" || result.OffsetMsgID == "" {
			return fmt.Errorf("send result %v", result)
		}
		sent = append(sent, payload)
	}
	box := newInbox()
	var wrong sync.Map
	_, err = l.push(l.group("sync"), topic, "*", func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			if m.GetTags() != "TagG" || m.GetProperty("number") == "" || m.Topic != topic {
				wrong.Store(m.MsgId, m.String())
			}
		}
		return box.handle(ctx, messages...)
	})
	if err != nil {
		return err
	}
	if err := box.await(sent, patience); err != nil {
		return err
	}
	wrong.Range(func(_, m interface{}) bool {
		err = fmt.Errorf("a message came back changed: %v", m)
		return false
	})
	return err
}

func sendAsync(l *lab) error {
	topic := l.topic("async")
	p, err := l.producer()
	if err != nil {
		return err
	}
	sent, err := send(p, topic, "first", 1)
	if err != nil {
		return err
	}
	answers := make(chan error, 100)
	for i := 0; i < 100; i++ {
		payload := fmt.Sprintf("async-%d", i)
		sent = append(sent, payload)
		err := p.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			if err == nil && result.Status != primitive.SendOK {
				err = fmt.Errorf("send status %v", result.Status)
			}
			answers <- err
		}, message(topic, "tag", payload))
		if err != nil {
			return err
		}
	}
	for i := 0; i < 100; i++ {
		select {
		case err := <-answers:
			if err != nil {
				return err
			}
		case <-time.After(patience):
			return fmt.Errorf("%d callbacks are missing", 100-i)
		}
	}
	return consumeAll(l, "async", topic, sent)
}

func sendOneway(l *lab) error {
	topic := l.topic("oneway")
	p, err := l.producer()
	if err != nil {
		return err
	}
	sent, err := send(p, topic, "first", 1)
	if err != nil {
		return err
	}
	for i := 0; i < 30; i++ {
		payload := fmt.Sprintf("oneway-%d", i)
		if err := p.SendOneWay(context.Background(), message(topic, "tag", payload)); err != nil {
			return err
		}
		sent = append(sent, payload)
	}
	return consumeAll(l, "oneway", topic, sent)
}

// One call with many messages is one request to the server.
func sendBatch(l *lab) error {
	topic := l.topic("batch")
	p, err := l.producer()
	if err != nil {
		return err
	}
	sent, err := send(p, topic, "first", 1)
	if err != nil {
		return err
	}
	var batch []*primitive.Message
	for i := 0; i < 100; i++ {
		payload := fmt.Sprintf("batch-%d-%s", i, strings.Repeat("x", 1000))
		batch = append(batch, message(topic, "tag", payload))
		sent = append(sent, payload)
	}
	result, err := p.SendSync(context.Background(), batch...)
	if err != nil {
		return err
	}
	if result.Status != primitive.SendOK {
		return fmt.Errorf("send status %v", result.Status)
	}
	return consumeAll(l, "batch", topic, sent)
}

// An answer took so long that FolioMQ may take the same object for a retry: it tells them apart by answers within a second.
var errLate = errors.New("no answers within half a second")

// One object sent several times on purpose, in every way to send: each one is a message. Offsets tell what is stored. On a
// machine too busy for prompt answers the story is told again, under another topic.
func again(l *lab) error {
	p, err := l.producer()
	if err != nil {
		return err
	}
	for told := 1; ; told++ {
		err := sendAgain(l, p, fmt.Sprintf("again_%d", told))
		if !errors.Is(err, errLate) || told == 20 {
			return err
		}
	}
}

func sendAgain(l *lab, p rocketmq.Producer, name string) error {
	const (
		times  = 10
		prompt = 500 * time.Millisecond
	)
	topic := l.topic(name)
	m := message(topic, "tag", "again")
	box := newPlaces()
	late := false
	note := func(begun time.Time) { late = late || time.Since(begun) >= prompt }
	for i := 0; i < times; i++ {
		begun := time.Now()
		result, err := p.SendSync(context.Background(), m)
		if err != nil {
			return err
		}
		if result.Status != primitive.SendOK {
			return fmt.Errorf("send status %v", result.Status)
		}
		note(begun)
	}
	answers := make(chan error, times)
	begun := time.Now()
	for i := 0; i < times; i++ {
		err := p.SendAsync(context.Background(), func(_ context.Context, _ *primitive.SendResult, err error) {
			answers <- err
		}, m)
		if err != nil {
			return err
		}
	}
	for i := 0; i < times; i++ {
		select {
		case err := <-answers:
			if err != nil {
				return err
			}
		case <-time.After(patience):
			return fmt.Errorf("%d callbacks are missing", times-i)
		}
	}
	note(begun)
	if late {
		return errLate
	}
	for i := 0; i < times; i++ {
		if err := p.SendOneWay(context.Background(), m); err != nil {
			return err
		}
	}
	if _, err := l.push(l.group(name), topic, "*", box.handle); err != nil {
		return err
	}
	return until(patience, fmt.Sprintf("%d messages stored, %d seen", 3*times, box.size()), func() bool {
		return box.size() == 3*times
	})
}

func consumeAll(l *lab, name, topic string, sent []string) error {
	box := newInbox()
	if _, err := l.push(l.group(name), topic, "*", box.handle); err != nil {
		return err
	}
	return box.await(sent, patience)
}
